"""Atomic files: a file or folder with its final name is always complete.

Every writer here writes to a temporary name beside the final one, flushes to the disk and renames. Only `FolderLock`
keeps two writers of one name apart. A full disk is reported with the path that could not be written.
"""

from pipo_core.files.atomic import DAMAGED, new_file, partial_beside, write_atomic
from pipo_core.files.disk_space import full_disk, writing
from pipo_core.files.fingerprints import file_fingerprint, fingerprint
from pipo_core.files.folders import fsync_tree, link_that_leaves, new_folder, remove_folder, remove_partial, usual_modes
from pipo_core.files.json_files import read_bytes, read_json, read_object, read_record, write_json, write_record
from pipo_core.files.json_lines import append_jsonl, decode_row, encode_row, parse_data, read_data, read_jsonl, read_log
from pipo_core.files.locks import FolderLock, lock_of, workers_lock_of

__all__ = [
    "DAMAGED",
    "FolderLock",
    "append_jsonl",
    "decode_row",
    "encode_row",
    "file_fingerprint",
    "fingerprint",
    "fsync_tree",
    "full_disk",
    "link_that_leaves",
    "lock_of",
    "new_file",
    "new_folder",
    "parse_data",
    "partial_beside",
    "read_bytes",
    "read_data",
    "read_json",
    "read_jsonl",
    "read_log",
    "read_object",
    "read_record",
    "remove_folder",
    "remove_partial",
    "usual_modes",
    "workers_lock_of",
    "write_atomic",
    "write_json",
    "write_record",
    "writing",
]
