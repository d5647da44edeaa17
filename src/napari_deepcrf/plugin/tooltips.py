"""Every tooltip in one place: what a control does to the result, not what it is called."""

from __future__ import annotations

from typing import Final

TOOLTIPS: Final[dict[str, str]] = {
    # what is segmented, by what
    "image": "The image to segment. Of a stack, the plane that the viewer shows.",
    "model": "Trained network and CRF. The last entry opens a .safetensors file.",
    "device": "Where the network runs. ‘auto’ takes a CUDA GPU if there is one.",
    "keep_marginals": "Which marginals become layers, in half precision. Fewer take less memory, "
    "shown beside before it is taken; labels and uncertainty are kept of every update.",
    "segment": "Run network and CRF on the image and add the results as layers (Shift+D).",
    "cancel": "Stop what is running. Layers and models stay as they are.",
    "badge": "Whether the layers belong to the image, the model and the CRF settings chosen now.",
    "class": "The class whose scores and marginals the viewer shows.",
    "update": "The mean-field update shown: 0 is the network alone, the last one the result.",
    # the CRF
    "w_spatial": "Weight of the smoothness kernel. Larger: small isolated regions vanish, "
    "whatever their colour.",
    "theta_gamma": "Width of the smoothness kernel in pixels. Larger: smoothing reaches farther "
    "and rounds corners.",
    "w_bilateral": "Weight of the appearance kernel. Larger: boundaries follow colour edges more "
    "than the network.",
    "theta_alpha": "Spatial width of the appearance kernel in pixels. Larger: farther pixels of "
    "like colour take the same label.",
    "theta_beta": "Colour width of the appearance kernel in grey levels of 0–255. Smaller: only "
    "nearly equal colours attract each other.",
    "independent": "A slider for every axis and colour channel: all nine parameters.",
    "iterations": "Number of mean-field updates. More: labels spread farther and settle.",
    "quality": "fast: as other tools do. accurate: closer to the exact sums, slower. "
    "exact: brute force, for small images.",
    "inference": "parallel: all pixels at once, the paper's. convergent: the KL falls at every "
    "update, slower.",
    "compatibility": "How labels attract each other: as the model learned, or Potts: equal ones "
    "only, all alike. The same for a model that did not learn it.",
    "learned": "Set widths and weights back to what the model was trained to, the notches below "
    "the sliders.",
    "curve": "Top: KL divergence between the marginals and the CRF, above its last value. "
    "Bottom: share of pixels that changed their label. Both flat means that more updates "
    "change nothing.",
    # annotating
    "annotate": "Add a scribble layer to paint classes on (Shift+A). Pressing Shift+1 … Shift+9 "
    "picks a class.",
    "scribbles": "Labels layer to learn from: 0 is unlabelled, k is the k-th class of the list.",
    "classes": "The classes. Click one to paint it, double-click to rename it.",
    "add_class": "Add a class. The model's top layer gets an output for it when it is trained.",
    "colour": "Change the colour of the class chosen in the list.",
    "new_list": "Start over with two classes, background and object.",
    "live": "After every stroke, fit the top layer to the scribbles and refine again.",
    # training
    "train_data": "Pairs of layers, or a folder of VOC layout or with images and labels.",
    "pairs": "Labels layers and the images they annotate; ticked ones are trained on.",
    "configuration": "scribbles: short, on the painted pixels. compact: the embedded model's "
    "recipe. paper: the paper's two stages.",
    "train": "Train in the background (Shift+S). The present model stays until you keep the "
    "new one.",
    "pause": "Hold training after the present step; press again to go on.",
    "stop": "End training now and keep the best state it has reached.",
    "keep": "Use the trained model from now on.",
    "revert": "Go back to the model as it was before training.",
    "save_model": "Write the model in use, with its CRF parameters, to a .safetensors file.",
    "model_folder": "Open the folder of the model's file.",
    "loss_curve": "Negative log-likelihood of the labelled pixels at every step.",
    "iou_curve": "Mean IoU of the network alone and with the CRF, on validation images, on pairs "
    "held out from training, or on what was painted.",
    "view_before": "Labels by the model as it was before the training.",
    "view_after": "Labels by the trained model.",
    "view_changed": "Where the two differ.",
    # a CRF for anything, objects, batch
    "source": "Refine the model's scores, or those of another tool: a layer of probabilities "
    "(classes first) or a labels layer.",
    "confidence": "How far the labels layer is trusted: the probability of the given label.",
    "objects": "Turn one class of the result into numbered objects with a table of features.",
    "object_class": "The class whose connected regions become objects.",
    "table": "Number, area in pixels, mean probability of the class, and mean entropy of the "
    "marginals along the border. Click a row to go to the object.",
    "minimum": "Regions with fewer pixels are left out.",
    "tiles": "Label an image of any size tile by tile, with the memory that there is. Cancel keeps "
    "the finished tiles; the same image, model and settings go on from them.",
    "tiles_view": "How many pixels the network sees side by side: about the size of the images "
    "that the model was made for. Larger: only larger objects are found.",
    "tiles_out": "Folder for the labels, an OME-Zarr image that is written tile by tile.",
    "batch_stack": "Segment every plane of the stack into one labels layer, that in view first.",
    "batch_width": "Width of one CRF over the planes of a stack, in planes, so that labels agree "
    "from one to the next; all planes are in memory then. Off: each plane by itself.",
    "batch_folder": "Folder of images to segment, or a .zarr image of any size, done in tiles.",
    "batch_out": "Folder for the labels and a table of areas.",
    "batch_format": "png: with VOC's palette. numpy: .npy files. ome-zarr: pyramids. coco-rle: run "
    "lengths in JSON.",
    "batch_run": "Segment every image of the folder with the model and the CRF settings as they "
    "are now; what is already there for the same image and settings is kept.",
    "batch_open": "Show the labels in the file manager.",
}
