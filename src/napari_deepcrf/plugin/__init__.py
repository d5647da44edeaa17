"""The napari side: a dock widget of small panels, its layers, workers, sample data and files.

Panels show state and emit what the user wants; `session` holds state and use cases; `dock`
wires the two. Nothing here is imported by a part of the package that works without a window.
"""
