"""Options: a dataclass holds the defaults; a Kaldi conf file or the command line changes them.

A conf file is as in Kaldi: one option per line, such as `--num-mel-bins=80  # comment`. `--name` alone means true. Names
are written with hyphens or underscores. A number may be a fraction: --warmup=6/150. The conf file overrides the dataclass,
and the command line overrides both. A name that is not a field is an error that lists the fields.

A stage script is
    @dataclass
    class Options:
        nj: int = opt(4, "number of jobs")
    def main(argv: list[str]) -> None:
        options, (data_dir, out_dir) = parse_args(Options, argv, __doc__, 2)
    if __name__ == "__main__":
        run(main)
"""

import dataclasses
import json
import logging
import math
import re
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def opt(default: Any, text: str) -> Any:
    """A dataclass field with a line of help."""
    return dataclasses.field(default=default, metadata={"help": text})


def read_conf(path: str | Path) -> dict[str, str]:
    """Kaldi conf file -> {field name: text}."""
    pairs: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: can't read this conf file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; remedy: iconv the file to UTF-8") from error
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        name, equals, value = line.partition("=")
        if not name.startswith("--") or " " in name.strip():
            raise ValueError(f"{path}:{number}: '{line}' is not of the form --name=value")
        key = name[2:].strip().replace("-", "_")
        if key in pairs:
            raise ValueError(f"{path}:{number}: --{name[2:].strip()} is given twice")
        pairs[key] = value.strip() if equals else "true"
    return pairs


def build(cls: type[T], pairs: dict[str, str], where: str) -> T:
    """Makes the dataclass from texts; `where` names their source in errors."""
    return update(cls(), pairs, where)


def update(conf: T, pairs: dict[str, str], where: str) -> T:
    """A copy of conf with some fields replaced by texts."""
    fields = {field.name: field for field in dataclasses.fields(conf)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(conf))
    values: dict[str, Any] = {}
    for name, text in pairs.items():
        if name not in fields:
            allowed = " ".join("--" + each.replace("_", "-") for each in sorted(fields))
            raise ValueError(f"{where}: no option --{name.replace('_', '-')} (allowed: {allowed})")
        try:
            values[name] = _value(hints[name], text)
        except ValueError as error:
            raise ValueError(f"{where}: --{name.replace('_', '-')}={text}: {error}") from error
    try:
        return dataclasses.replace(conf, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def typed_conf(path: str | Path, table: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """A conf file that names a class by --type=name -> (name, table[name], its Conf with the file's options)."""
    pairs = read_conf(path)
    allowed = " ".join(sorted(table))
    name = pairs.pop("type", "")
    if not name:
        raise ValueError(f"{path}: a line --type=name is missing (allowed: {allowed})")
    if name not in table:
        raise ValueError(f"{path}: --type={name} is not known (allowed: {allowed})")
    return name, table[name], build(table[name].Conf, pairs, str(path))


def _value(kind: Any, text: str) -> Any:
    if kind is bool:
        if text.lower() in ("true", "t", "1"):
            return True
        if text.lower() in ("false", "f", "0"):
            return False
        raise ValueError("not true or false")
    if kind is str:
        return text
    if kind in (int, float):
        return _integer(text) if kind is int else _number(text)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], part) for part in text.replace(":", ",").split(",") if part.strip())
    if origin in (types.UnionType, typing.Union) and type(None) in args:
        (inner,) = [each for each in args if each is not type(None)]
        return None if text == "" else _value(inner, text)
    raise TypeError(f"options of type {kind} are not supported")


# Python's int() would also accept 1_000 and digits of other scripts.
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def _integer(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError("not a whole number")
    return int(text)


def _number(text: str) -> float:
    """A decimal number, or a fraction such as 6/150."""
    parts = text.split("/")
    if len(parts) > 2 or not all(_DECIMAL.fullmatch(part) for part in parts):
        raise ValueError("not a number")
    upper, lower = (float(part) for part in [*parts, "1"][:2])
    if lower == 0:
        raise ValueError("not a number: it divides by 0")
    if not math.isfinite(upper / lower) or not math.isfinite(lower):
        raise ValueError("not a finite number")
    return upper / lower


def require_least(conf: Any, least: int, *names: str) -> None:
    """Each of these fields, a number or a tuple of numbers, must be at least `least`. For a dataclass's __post_init__."""
    for name in names:
        value = getattr(conf, name)
        if min(value if isinstance(value, tuple) else (value,), default=least) < least:
            raise ValueError(f"--{name.replace('_', '-')}={text_of(value)} must be {least} or more")


def text_of(value: Any) -> str:
    """A field's value as it is written in a conf file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ":".join(text_of(each) for each in value)
    return "" if value is None else str(value)


def to_text(conf: Any) -> str:
    """The dataclass as a conf file."""
    return "".join(
        f"--{field.name.replace('_', '-')}={text_of(getattr(conf, field.name))}\n" for field in dataclasses.fields(conf)
    )


def to_json(conf: Any) -> str:
    return json.dumps(dataclasses.asdict(conf), indent=2, sort_keys=True)


def from_json(cls: type[T], text: str, where: str) -> T:
    pairs = {name: text_of(tuple(v) if isinstance(v, list) else v) for name, v in json.loads(text).items()}
    return build(cls, pairs, where)


def parse_args(cls: type[T], argv: Sequence[str], usage: str | None, num_args: int | None = 0) -> tuple[T, list[str]]:
    """The options and positional arguments of a script. --config files are read first; --help prints the usage.

    num_args is how many positional arguments there must be (None: any number).
    """
    pairs: dict[str, str] = {}
    conf_files: list[str] = []
    rest: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word in ("--help", "-h"):
            print(_help(cls, usage))
            raise SystemExit(0)
        if not word.startswith("--"):
            rest.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not queue:
                raise ValueError(f"option {word} needs a value (see --help)")
            value = queue.pop(0)
        if name == "config":
            conf_files.append(value)
        else:
            pairs[name.replace("-", "_")] = value
    conf = cls()
    for path in conf_files:
        conf = update(conf, read_conf(path), path)
    conf = update(conf, pairs, "command line")
    if num_args is not None and len(rest) != num_args:
        raise ValueError(f"needs {num_args} argument(s), got {len(rest)}: {' '.join(rest)} (see --help)")
    return conf, rest


def _help(cls: Any, usage: str | None) -> str:
    lines = [(usage or "").strip(), "", "Options (and --config file):"]
    for field in dataclasses.fields(cls):
        default = text_of(field.default) if field.default is not dataclasses.MISSING else ""
        name = "--" + field.name.replace("_", "-")
        lines.append(f"  {name:<26} {field.metadata.get('help', '')} [{default}]")
    return "\n".join(lines)


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Calls main(arguments). An error in input, files or memory becomes one line on stderr, and the exit status is 1."""
    name = Path(sys.argv[0]).name
    logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr)
    # A job runner ends the script: leave as after Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except MemoryError as error:
        print(
            f"{name}: error: the memory is used up ({error or 'no more could be had'}); see ulimit -v", file=sys.stderr
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0)


def first_few(names: Iterable[str], count: int = 3) -> str:
    """'a, b, c and 4 more', for messages."""
    listed = list(names)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more
