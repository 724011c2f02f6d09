"""What is done to the inputs and outputs of a command, and to the system that it runs on.

One line in a table here is one attack more on every command that it fits.
"""

from pathlib import Path

from hostile import damages, inputs
from hostile.contents import (
    another_format,
    array,
    damaged,
    exchanged,
    linked_file,
    manifest_value,
    manifest_with_foreign_file,
    manifest_without,
    setting,
    without_file,
)
from hostile.places import (
    empty_folder,
    fifo,
    fifo_inside,
    flock,
    folder_there,
    full_disk,
    given,
    link_to,
    missing,
    named,
    named_inside,
    occupied,
    occupied_by_folder,
    output_link,
    output_named,
    overwriting,
    planted,
    read_only,
    unreadable,
    unreadable_folder,
)

NAMES = {
    "newline": b"a\nb",
    "escape": b"\x1b[31mred\x07",
    "not_utf8": b"caf\xe9\xff",
    "long": b"x",
    "long_umlauts": "ä".encode() * 110,
    "dash": b"-rf",
    "quotes": b"'\"$(id)`;",
    "backslash": b"..\\..\\a",
    "direction": "\u202egnp".encode(),
    "percent": b"%s%(x)d{0}{x}",
    "hash": b"#?*[a]",
}
_TARGETS = {
    "dangling": "nowhere",
    "loop": "{self}",
    "to_null": "/dev/null",
    "to_zero": "/dev/zero",
    "to_folder": "{neighbor}",
    "to_canary": "{neighbor}/canary.txt",
    "to_missing_neighbor": "{neighbor}/new",
}

# Attacks by what they are on, with the number of seeds each is tried with.
ON_FILES = {
    **{f"damage.{name}": (damaged(d, False), 1) for name, d in damages.DAMAGES.items()},
    "damage.flipped": (damaged(damages.flipped, False), 3),
    "damage.member": (damaged(damages.member, False), 3),
    "damage.oversized": (damaged(damages.oversized, False), 4),
    "damage.oversized_text": (damaged(damages.oversized_text, False), 3),
    "another_format": (another_format, 2),
}
ON_ARRAYS = {f"array.{name}": (array(change), 1) for name, change in damages.ARRAYS.items()}
ON_INDEXES = {
    **{f"signed.{name}": (damaged(d, True), 1) for name, d in damages.DAMAGES.items()},
    "signed.flipped": (damaged(damages.flipped, True), 6),
    "signed.flipped_head": (damaged(damages.flipped_head, True), 6),
    "signed.oversized": (damaged(damages.oversized, True), 8),
    "signed.member": (damaged(damages.member, True), 3),
    **{f"manifest.{name}": (manifest_value(value), 3) for name, value in damages.VALUES.items()},
    "manifest.without": (manifest_without, 12),
    "manifest.foreign_file": (manifest_with_foreign_file, 4),
    "exchanged": (exchanged, 4),
    "without_file": (without_file, 2),
}
ON_SETTINGS = {f"setting.{name}": (setting(value), 6) for name, value in damages.VALUES.items()}
ON_PLACES = {
    **{name: (f, 1) for name, f in (("missing", missing), ("folder", folder_there))},
    **{name: (f, 1) for name, f in (("empty_folder", empty_folder), ("fifo", fifo))},
    "fifo_inside": (fifo_inside, 1),
    "unreadable": (unreadable, 1),
    "unreadable_folder": (unreadable_folder, 1),
    "linked_file": (linked_file, 1),
    **{f"link.{name}": (link_to(target), 1) for name, target in _TARGETS.items()},
    **{f"link_inside.{name}": (link_to(target, True), 1) for name, target in _TARGETS.items()},
    **{f"name.{name}": (named(raw), 1) for name, raw in NAMES.items()},
    **{f"name_inside.{name}": (named_inside(raw), 1) for name, raw in NAMES.items() if raw != b"x"},
    "given.empty": (given(""), 1),
    "given.long": (given("x" * 5000), 1),
    "given.memory": (given("/proc/self/mem"), 1),
}
_OCCUPIED = {"occupied": occupied, "occupied_by_folder": occupied_by_folder}
ON_OUTPUTS = {
    **{name: (attack, 1) for name, attack in _OCCUPIED.items()},
    **{f"overwrite.{name}": (overwriting(attack), 1) for name, attack in _OCCUPIED.items()},
    **{f"link.{name}": (output_link(target), 1) for name, target in _TARGETS.items()},
    **{
        f"overwrite.link.{name}": (overwriting(output_link(target)), 1)
        for name, target in _TARGETS.items()
    },
    **{f"name.{name}": (output_named(raw), 1) for name, raw in NAMES.items()},
    "given.empty": (given(""), 1),
    "given.here": (given("."), 1),
    "given.parent": (given(".."), 1),
    "given.root": (given("/"), 1),
    "given.null": (given("/dev/null"), 1),
    "given.no_folder": (given("nowhere/x"), 1),
    "given.below_a_file": (given("{neighbor}/canary.txt/x"), 1),
}
ON_SYSTEM = {
    "full_disk": (full_disk, 6),
    "no_locks": (flock("ENOLCK"), 1),
    "locks_unknown": (flock("ENOSYS"), 1),
    "locks_unsupported": (flock("EOPNOTSUPP"), 1),
    **{f"planted.{name}": (planted(name), 8) for name in ("file", "new", "folder", "fifo", "junk")},
}
ON_WRITTEN_FOLDERS = {"read_only": (read_only, 1)}


def attacks_on(place, format):
    """The attacks on an input or output, by name, each with its number of seeds."""
    if place.role == "new":
        # Folders that are there already, such as the root, are filled with plots.
        unfit = {"given.root"} if format == "plots" else set()
        outputs = ON_OUTPUTS | ON_WRITTEN_FOLDERS
        return {name: attack for name, attack in outputs.items() if name not in unfit}
    found = ON_FILES | ON_PLACES
    if format.endswith(".mecoq"):
        found |= ON_INDEXES
    if Path(format).suffix in inputs.WRITERS:
        found |= ON_ARRAYS
    if format.endswith(".json"):
        found |= ON_SETTINGS
    return found | ON_WRITTEN_FOLDERS if place.role else found
