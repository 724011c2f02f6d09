"""Values of options that a command cannot or should not take."""

import click


def numbers(option):
    texts = (
        "0",
        "-1",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e309",
        "",
        "x",
        "²",
        "٣",
        "0x10",
        "1_0",
        " 1",
    )
    large = (str(2**31 - 1), str(2**31), str(2**63), "9" * 30, "9" * 5000)
    works_long = {"epochs", "repeats", "workers", "image_size", "patience"}
    return texts if option.name in works_long else texts + large


TEXTS = (
    *("", " ", "x", "a\nb", "\x1b[31m", "é" * 300, "x" * 100_000, "../x", "{}", "null"),
    *("json:loads", "no_such:thing", "\udcff", "%s%n", "0", "-1", ",", ",,,", "a,a"),
)
SPECIAL = {
    "factory": (
        *("IVF100000000,MeCoQ", "IVF," * 500 + "MeCoQ", "IVF8," * 500, "(" * 10_000, "MeCoQ" * 200),
        *("IVF2(IVF2147483647,Flat),MeCoQ", "HNSW2147483647,MeCoQ", "HNSW1024,MeCoQ", "PQ4x4"),
        *("MeCoQ4x4fs_2147483616", "Refine(" * 3000, "IVF0,MeCoQ", "IVF²,MeCoQ", "IDMap," * 99),
    ),
    "changes": (
        *("x", "=", "epochs=", "epochs=-1", "epochs=nan", "batch_size=1", "dim=²"),
        *("dim=1000000000", "hidden_dim=1000000000", "batch_size=99999999999"),
        *("memory_size=100000000000", "lr=nan", "lr=[1]"),
        *("num_codebooks=1000000", "num_codewords=100000", "temperature=0", "temperature=1e-300"),
        *("seed=100000000000000000000", "objective={}", "precision=x", "optimizer=os:abort"),
        *("augmentation={}", "projection=x", "held_out=1e30", "a" * 5000 + "=1"),
        *("trainable_layers=-5", "view_dropout=1", "momentum=2", "weight_decay=inf", "dim=true"),
    ),
    "uri": (
        *("http://root:S3cretOfTheTests@127.0.0.1:99999/x", "root:S3cretOfTheTests@host"),
        *("http://", "http://[", "/dev/null/.db", "http://127.0.0.1:1/x?token=S3cretOfTheTests"),
        *(".db", "a\nb.db", "../neighbor/x.db", "x.db/a/b", "http://127.0.0.1:1/x"),
        *("ftp://h/x", "http://h:²/x", "HTTP://h/../x", "unix:/x", "\x1b.db"),
    ),
    "shard": ("0/1", "2/1", "1/0", "²/³", "1/99999999999999999999", "1", "/", "1/2/3", "-1/2"),
}  # fmt: skip


def option_values(command):
    """Arguments to add to a command: for every option, what it cannot or should not take."""
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        spelled = option.opts[0]
        if option.is_flag or option.flag_value is True:
            yield [f"{spelled}=x"]
            yield [spelled, spelled]
            continue
        if isinstance(option.type, click.Path) and not option.type.exists:
            continue  # an output, which stands in a template
        numeric = option.type.name.startswith(("integer", "float"))
        usual = numbers(option) if numeric else TEXTS
        for value in (*usual, *SPECIAL.get(option.name, ())):
            yield [spelled, value]
    yield from ([word] for word in ("--unknown", "-Z", "--ou", "one more", "--\x1b[1m", "--é\n"))
