"""utils/parse_options.sh, sourced by small scripts that run under set -euo pipefail, as all of ours do."""

import subprocess
from pathlib import Path

import pytest

PARSE_OPTIONS = Path(__file__).resolve().parent.parent / "utils/parse_options.sh"

SCRIPT = """#!/usr/bin/env bash
# Do the thing.
#
# Usage: thing.sh [options] <in>
# Not parse_options.sh itself.
# shellcheck disable=SC2034

# A comment that is not help.
set -euo pipefail
stage=0
kd_type=kld
normalize=true
empty=
. "{parse_options}"
late=1
printf '%s|' "$stage" "$kd_type" "$normalize" "$empty" "$@"
"""


@pytest.fixture
def run(tmp_path: Path):
    script = tmp_path / "thing.sh"
    script.write_text(SCRIPT.format(parse_options=PARSE_OPTIONS))

    def runner(*words: str, script: Path = script, env: dict | None = None):
        return subprocess.run(
            ["bash", str(script), *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return runner


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], "0|kld|true||"),
        (["--stage", "3", "--kd-type", "mse"], "3|mse|true||"),
        (["--kd_type", "mse", "--normalize", "false"], "0|mse|false||"),
        (["--kd-type", "two words $HOME `x`"], "0|two words $HOME `x`|true||"),
        (["--kd-type", "--gamma=2"], "0|--gamma=2|true||"),
        (["--kd-type", ""], "0||true||"),
        (["--empty", "e"], "0|kld|true|e|"),
        (["--stage", "1", "--stage", "2"], "2|kld|true||"),
        (["in", "--stage", "3"], "0|kld|true||in|--stage|3|"),
        (["--stage", "3", "a b", "", "c"], "3|kld|true||a b||c|"),
        (["in", "--config", "nowhere"], "0|kld|true||in|--config|nowhere|"),
        (["--kd-type", "--config", "in"], "0|--config|true||in|"),
    ],
)
def test_options_become_variables(run, words, values):
    done = run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, values, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stag", "3"], "no option '--stag' (allowed: --empty --kd_type --normalize --stage )"),
        (["--late", "3"], "no option '--late'"),
        (["--_po_name", "3"], "no option '--_po_name'"),
        (["--", "x"], "not an option: '--'"),
        (["--a.b", "x"], "not an option: '--a.b'"),
        (["--stage=3"], "write '--stage 3', not '--stage=3'"),
        (["--stage"], "option --stage needs a value"),
        (["--normalize", "yes"], "option --normalize takes true or false, not 'yes'"),
        (["--config"], "--config needs a file"),
        (["--config", "nowhere"], "no such file: nowhere"),
    ],
)
def test_mistakes_are_errors(run, words, message):
    done = run(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith(str(done.args[1]))


def test_config_is_read_first_and_the_command_line_wins(run, tmp_path):
    (tmp_path / "my.conf").write_text("stage=7\nkd_type='from conf'\n")
    assert run("--stage", "3", "--config", "my.conf", "in").stdout == "3|from conf|true||in|"
    assert run("--config", str(tmp_path / "my.conf"), "--stage", "3").stdout == "3|from conf|true||"


def test_a_config_beside_us_is_not_searched_for_in_path(run, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/my.conf").write_text("stage=9\n")
    (tmp_path / "my.conf").write_text("stage=7\n")
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    assert run("--config", "my.conf", env=env).stdout.startswith("7|")


def test_a_typo_in_a_config_is_an_error(run, tmp_path):
    (tmp_path / "my.conf").write_text("stgae=7\n")
    done = run("--config", "my.conf")
    assert done.returncode == 1
    assert "my.conf: no option 'stgae'" in done.stderr


def test_after_a_config_help_and_errors_are_still_those_of_the_script(run, tmp_path):
    (tmp_path / "my.conf").write_text("# Not the help.\n# Of a config file.\nstage=7\n")
    assert run("--config", "my.conf", "--help").stdout.startswith("Do the thing.\n")
    done = run("--config", "my.conf", "--stag", "3")
    assert done.returncode == 1
    assert "no option '--stag' (allowed: --empty --kd_type --normalize --stage )" in done.stderr


def test_a_config_may_not_set_the_variables_of_this_file(run, tmp_path):
    (tmp_path / "my.conf").write_text("_po_i=7\n")
    done = run("--config", "my.conf", "--stage", "3")
    assert done.returncode == 1
    assert "my.conf: no option '_po_i' (allowed: --empty --kd_type --normalize --stage )" in done.stderr


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_the_header(run, word):
    done = run("--stage", "1", word)
    assert done.returncode == 0
    assert done.stdout == "Do the thing.\n\nUsage: thing.sh [options] <in>\nNot parse_options.sh itself.\n"


def test_help_message_replaces_the_header(run, tmp_path):
    script = tmp_path / "other.sh"
    script.write_text(f"# header\nhelp_message='Mine.'\n. {PARSE_OPTIONS}\n")
    assert run("--help", script=script).stdout == "Mine.\n"


def test_an_empty_cmd_is_an_error(run, tmp_path):
    script = tmp_path / "cmd.sh"
    script.write_text(f'set -eu\ncmd=utils/run_jobs.sh\n. {PARSE_OPTIONS}\necho "$cmd"\n')
    assert run("--cmd", "queue.pl --mem 4G", script=script).stdout == "queue.pl --mem 4G\n"
    done = run("--cmd", "", script=script)
    assert done.returncode == 1
    assert "--cmd is empty" in done.stderr


def test_nothing_of_its_own_is_left(run, tmp_path):
    script = tmp_path / "left.sh"
    script.write_text(f"set -eu\nstage=0\n. {PARSE_OPTIONS}\nset | grep -c ^_po_ || true\n")
    assert run("--stage", "1", script=script).stdout == "0\n"
