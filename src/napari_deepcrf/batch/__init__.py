"""One model over many image files: on this machine or on a Dask cluster, without a window.

- `images` says which files a run reads and what their results are called.
- `run` is the run; `segmenter` is the work on one file, here or, by `cluster`, on a worker.
- `zarr_images` are done in tiles instead.
- `formats`, with `coco` and `ome_zarr`, makes a result's files; `records` puts them into the folder
  and remembers what they were made from; `summary` is the table of all.
"""
