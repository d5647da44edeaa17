"""One model over many image files: on this machine or on a Dask cluster, without a window."""
