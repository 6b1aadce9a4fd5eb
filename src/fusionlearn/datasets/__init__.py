"""Public data sets for trying things out: found, checked and read, never shipped.

`find` gives the folder of any of the `names()`: `$FUSIONLEARN_DATA/NAME`, the cache, or a download from the official
place whose hash is compared before anything reads it. The loaders give NumPy columns. Needs the extra `data`.

    from fusionlearn import datasets

    hospitals = datasets.heart_disease()                      # {"cleveland": {"age": array, …}, …}
    paths = datasets.export(hospitals, Path("hospitals"))     # one CSV a hospital, for the commands
"""

from fusionlearn.datasets.fetch import cache_folder, find
from fusionlearn.datasets.images import cifar10, mnist, office_caltech10, pneumoniamnist, usps
from fusionlearn.datasets.registry import Dataset, File, Source, names, record
from fusionlearn.datasets.tables import (
    HEART_COLUMNS,
    HOSPITALS,
    Columns,
    credit_default_taiwan,
    export,
    fed_heart_disease,
    heart_disease,
    occupancy,
    room_occupancy,
    wisdm_har,
)

__all__ = [
    "HEART_COLUMNS",
    "HOSPITALS",
    "Columns",
    "Dataset",
    "File",
    "Source",
    "cache_folder",
    "cifar10",
    "credit_default_taiwan",
    "export",
    "fed_heart_disease",
    "find",
    "heart_disease",
    "mnist",
    "names",
    "occupancy",
    "office_caltech10",
    "pneumoniamnist",
    "record",
    "room_occupancy",
    "usps",
    "wisdm_har",
]
