"""Datasets of images and labels, and the files they come from.

A dataset yields `samples.Sample` objects: `voc` and `sbd` as published (`published` downloads
them), `folder` of one's own, `arrays` in memory. `copies`, `patches`, `soft_labels` and
`transforms` stand between a dataset and a network; `scribbles` is VOC with ScribbleSup's strokes.
`file_dataset` is what datasets of files have in common, `problems` finds all that is wrong with
one. `images` says what counts as an image; `image_files`, `label_files`, `npy` and `npz` read files
without trusting them.
"""
