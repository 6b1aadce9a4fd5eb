"""A site's real export: how it is written (site.toml), read in pieces, checked as a whole, and a map drafted for it.

    SiteMap.load(path) ──open_source(data, schema, map)──▶ source.pieces(rows) ──▶ Schema.read

Columns the task does not declare are never turned into arrays, only named in `source.ignored`. No message holds a
cell's value: it names the row, counted from 1 without the header and without empty lines, and the kind of fault.
"""

from fusionlearn.site.check import Stats, faults
from fusionlearn.site.draft import Draft, draft
from fusionlearn.site.map import ColumnMap, FileOptions, SiteMap
from fusionlearn.site.source import Source, hold_out_mask, open_source

__all__ = [
    "ColumnMap",
    "Draft",
    "FileOptions",
    "SiteMap",
    "Source",
    "Stats",
    "draft",
    "faults",
    "hold_out_mask",
    "open_source",
]
