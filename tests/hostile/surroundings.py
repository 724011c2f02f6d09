"""What lies in a folder, and what a command has printed."""

import hashlib
import os
import re
import stat

_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


def snapshot(folder):
    """Every name below a folder, with its type, mode and a digest of its content."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            info = os.lstat(path)
            content = ""
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as stream:
                    content = hashlib.sha256(stream.read()).hexdigest()
            found[os.path.relpath(path, folder)] = (oct(info.st_mode), content)
    return found


def what_was_wrong(code, out, err, secret, longest):
    """What was wrong with how a command ended and with what it printed."""
    if code is None:
        return
    text = err.decode(errors="backslashreplace")
    lines = text.rstrip().splitlines()
    if b"Traceback (most recent call last)" in err or code == 70:
        where = re.findall(r'mecoq_index/([^"\n]+)", (line \d+)', text)[-1:]
        yield f"traceback: {lines[-1][:200]} {' '.join(where[0]) if where else ''}"
    elif code not in (0, 1, 2):
        yield f"exit code {code}"
    elif code:
        errors = [line for line in lines if line.startswith("Error: ")]
        if len(errors) != 1 or lines[-1] != errors[0]:
            yield f"no single sentence at the end: {lines[-3:]}"
        elif len(errors[0]) > 2000 + longest:
            yield f"a sentence of {len(errors[0])} characters"
    for stream in (out, err):
        if found := _CONTROLS.search(stream):
            around = stream[max(0, found.start() - 30) : found.end() + 30]
            yield f"printed control characters: {around!r}"
        if secret.encode() in stream or secret.partition(":")[2].encode() in stream:
            yield "printed a secret"
    try:
        out.decode()
    except UnicodeDecodeError:
        yield "printed what is not UTF-8"
