"""utils/run_jobs.sh: the contract of Kaldi's run.pl."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

RUN_JOBS = Path(__file__).resolve().parent.parent / "utils/run_jobs.sh"


@pytest.fixture
def run(tmp_path: Path):
    def runner(*words: str, **env: str | None):
        """With some environment variables set, or, for None, taken out."""
        changed = {**os.environ, **env}
        return subprocess.run(
            [RUN_JOBS, *words],
            cwd=tmp_path,
            env={name: value for name, value in changed.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return runner


def output(log: Path) -> list[str]:
    """What the command itself wrote: the lines of a log between its head and its tail."""
    return [line for line in log.read_text().splitlines() if not line.startswith("#")]


def test_the_log(run, tmp_path):
    assert run("--num-threads", "2", "a/log/x.log", "echo", "hello").returncode == 0
    lines = (tmp_path / "a/log/x.log").read_text().splitlines()
    assert lines[0] == "# echo hello "
    assert lines[1].startswith("# Started at ")
    assert lines[2:4] == ["#", "hello"]
    assert re.fullmatch(r"# Accounting: time=\d+ threads=2", lines[4])
    assert re.fullmatch(r"# Ended \(code 0\) at .*, elapsed time \d+ seconds", lines[5])
    assert len(lines) == 6


def test_both_streams_are_logged_and_nothing_is_printed(run, tmp_path):
    done = run("x.log", "echo out; echo err >&2".replace(" ", "${IFS}"), ";", "echo", "more", ">&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert output(tmp_path / "x.log")[-1] == "more"


@pytest.mark.parametrize("spec", ["JOB=1:3", "N=1:3", "my_job=1:3"])
def test_the_name_is_replaced_everywhere(run, tmp_path, spec):
    name = spec.split("=")[0]
    assert run(spec, f"log.{name}/x.{name}.log", "echo", name, f"a.{name}.{name}").returncode == 0
    for job in "123":
        assert output(tmp_path / f"log.{job}/x.{job}.log") == [f"{job} a.{job}.{job}"]


def test_one_job_of_many(run, tmp_path):
    assert run("JOB=3", "x.JOB.log", "echo", "JOB").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.3.log"]


def test_the_quoting_is_that_of_run_pl(run, tmp_path):
    # No white space: as it is. White space: double quotes, so that $ still acts. A double quote too: single quotes.
    run("x.log", "printf", "[%s]\\\\n", "a b", "$HOME", "c $HOME", 'd "$HOME"', "", "e\tf", HOME="/h")
    assert output(tmp_path / "x.log") == ["[a b]", "[/h]", "[c /h]", '[d "$HOME"]', "[]", "[e\tf]"]


def test_pipes_and_redirections_act(run, tmp_path):
    assert run("x.log", "printf", "b\\\\na\\\\n", "|", "sort", ">", "sorted", "&&", "echo", "done").returncode == 0
    assert (tmp_path / "sorted").read_text() == "a\nb\n"
    assert output(tmp_path / "x.log") == ["done"]


def test_there_is_no_input_to_wait_for(run, tmp_path):
    assert run("x.log", "cat").returncode == 0
    assert output(tmp_path / "x.log") == []


def test_the_environment_is_the_callers(run, tmp_path):
    run("x.log", "echo", "$LC_ALL", "$-", LC_ALL="C.UTF-8")
    locale, flags = output(tmp_path / "x.log")[0].split()
    assert locale == "C.UTF-8"
    assert "e" not in flags
    assert "u" not in flags


def test_a_long_command(run, tmp_path):
    words = [f"w{i:05d}" for i in range(30000)]  # longer than one argument may be
    assert run("x.log", "echo", *words).returncode == 0
    assert output(tmp_path / "x.log") == [" ".join(words)]


def test_a_failure_is_told(run, tmp_path):
    done = run("log/x.log", "echo", "the", "reason", ";", "exit", "7")
    assert done.returncode == 1
    assert "run_jobs.sh: job failed, log is in log/x.log" in done.stderr
    assert "  | the reason" in done.stderr
    assert "# Ended (code 7) at " in (tmp_path / "log/x.log").read_text()


def test_failures_among_many_are_counted_and_named(run, tmp_path):
    done = run("--max-jobs-run", "2", "JOB=1:5", "log/x.JOB.log", "echo", "this_is_JOB", ";", "exit", "$((JOB%2))")
    assert done.returncode == 1
    assert "3 / 5 failed, log is in log/x.*.log (failed: 1 3 5)" in done.stderr
    assert "this_is_1" in done.stderr
    assert "this_is_3" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [f"x.{job}.log" for job in range(1, 6)]


def test_an_error_far_from_the_end_of_the_log_is_shown(run, tmp_path):
    error = ["echo", "train.py: error: no such teacher"]
    said = run("log/x.log", *error, ";", "seq", "30", ";", "exit", "3").stderr
    assert "log/x.log says:\n  | train.py: error: no such teacher\n" in said
    said = run("log/x.log", "seq", "30", ";", *error, ";", "exit", "3").stderr
    assert "says:" not in said
    assert said.count("no such teacher") == 1


def test_a_job_killed_by_a_signal_has_failed(run, tmp_path):
    assert run("x.log", "kill", "-9", "$BASHPID").returncode == 1
    assert "# Ended (code 137)" in (tmp_path / "x.log").read_text()


def test_a_log_that_says_it_ended_well_deceives_nobody(run):
    assert run("x.log", "echo", "# Ended (code 0) at last", ";", "false").returncode == 1


def test_a_forgotten_range(run):
    assert "is JOB=1:$nj missing" in run("x.JOB.log", "false").stderr


@pytest.mark.parametrize(
    "options",
    [
        ["-q", "all.q", "-l", "arch=*64*", "-j", "y", "-V", "-sync", "y"],
        ["--mem", "4G", "--time", "1:00:00", "--gpu", "0"],
        ["-pe", "smp", "4"],
        ["-tc", "1"],
        ["--config", "conf/queue.conf"],
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_options_of_queues_are_taken(run, tmp_path, options, after):
    words = ["JOB=1:2", *options] if after else [*options, "JOB=1:2"]
    assert run(*words, "x.JOB.log", "echo", "JOB").returncode == 0
    assert output(tmp_path / "x.2.log") == ["2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["JOB=1:2", "x.log", "true"], "2 jobs cannot share the log x.log"),
        (["JOB=2:1", "x.JOB.log", "true"], "'JOB=2:1' is not a range"),
        (["JOB=0:1", "x.JOB.log", "true"], "'JOB=0:1' is not a range"),
        (["--max-jobs-run", "0", "x.log", "true"], "--max-jobs-run takes a positive integer, not '0'"),
        (["--gpu", "x", "x.log", "true"], "--gpu takes a number, not 'x'"),
        (["--mem=4G", "x.log", "true"], "write '--mem 4G'"),
        (["x.log"], "Usage: run_jobs.sh"),
    ],
)
def test_mistakes_are_errors(run, tmp_path, words, message):
    done = run(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help(run):
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Run a command")


def most_at_once(folder: Path) -> int:
    """From files <job>.start and <job>.end, whose times of change say when each job ran."""
    events = [(path.stat().st_mtime_ns, path.suffix) for path in folder.iterdir() if path.suffix in (".start", ".end")]
    now = most = 0
    for _, kind in sorted(events):
        now += 1 if kind == ".start" else -1
        most = max(most, now)
    assert now == 0
    return most


@pytest.mark.parametrize(("options", "most"), [(["--max-jobs-run", "2"], 2), (["-tc", "3", "--max-jobs-run", "1"], 1)])
def test_max_jobs_run(run, tmp_path, options, most):
    job = ["touch", "JOB.start", ";", "sleep", "0.3", ";", "touch", "JOB.end"]
    assert run(*options, "JOB=1:5", "x.JOB.log", *job).returncode == 0
    assert most_at_once(tmp_path) == most


def test_by_default_there_are_as_many_as_cores(run, tmp_path):
    (tmp_path / "bin").mkdir()
    nproc = tmp_path / "bin/nproc"
    nproc.write_text('#!/bin/sh\necho "${OMP_NUM_THREADS:-4}"\n')
    nproc.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    job = ["touch", "JOB.start", ";", "sleep", "0.5", ";", "touch", "JOB.end"]
    assert run("--num-threads", "2", "JOB=1:5", "x.JOB.log", *job, PATH=path, OMP_NUM_THREADS="1").returncode == 0
    assert most_at_once(tmp_path) == 2


def test_each_job_gets_its_own_gpus(run, tmp_path):
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin/nvidia-smi"
    smi.write_text("#!/bin/sh\nfor i in 0 1 2 3; do echo GPU $i: name; done\n")
    smi.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    job = ["echo", "$CUDA_VISIBLE_DEVICES", ";", "sleep", "0.5"]
    assert run("--gpu", "2", "JOB=1:2", "x.JOB.log", *job, PATH=path, CUDA_VISIBLE_DEVICES=None).returncode == 0
    assert sorted(output(tmp_path / f"x.{i}.log")[0] for i in (1, 2)) == ["0,1", "2,3"]
    assert run("--gpu", "1", "JOB=1:2", "y.JOB.log", *job, PATH=path, CUDA_VISIBLE_DEVICES="5,7").returncode == 0
    assert sorted(output(tmp_path / f"y.{i}.log")[0] for i in (1, 2)) == ["5", "7"]
    none = run("--gpu", "1", "n.log", "echo", "[$CUDA_VISIBLE_DEVICES]", PATH=path, CUDA_VISIBLE_DEVICES="")
    assert none.returncode == 0
    assert "found no GPU" in none.stderr
    assert output(tmp_path / "n.log") == ["[]"]
    assert run("--gpu", "0", "z.log", *job, PATH=path, CUDA_VISIBLE_DEVICES="5,7").returncode == 0
    assert output(tmp_path / "z.log") == ["5,7"]


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("sent", "stubborn"),
    [(signal.SIGTERM, ""), (signal.SIGHUP, ""), (signal.SIGINT, ""), (signal.SIGTERM, "trap '' TERM; ")],
)
def test_a_signal_ends_what_the_jobs_started(tmp_path, sent, stubborn):
    (tmp_path / "job.sh").write_text(f"{stubborn}bash -c 'echo $$ > pid.'$1'; sleep 300; true'; true\n")
    process = subprocess.Popen(
        [RUN_JOBS, "--max-jobs-run", "2", "JOB=1:3", "x.JOB.log", "bash", "job.sh", "JOB"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    files = [tmp_path / "pid.1", tmp_path / "pid.2"]
    deadline = time.monotonic() + 20
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == -sent  # so that a script stops where its runner was interrupted
    assert error.count("\n") == 1
    assert "jobs were ended, logs are in x.*.log" in error
    pids = [file.read_text().strip() for file in files]
    deadline = time.monotonic() + 5
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "x.3.log").exists()


def on_a_terminal(words: list[str], folder: Path, seconds: float = 30, **env: str) -> tuple[int, str]:
    """Exit status and what a user's terminal receives."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(words[0], words, {**os.environ, "TERM": "xterm", **env})
    received, ends = b"", time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the terminal's way of saying that nobody writes any more
            break
        if not part:
            break
        received += part
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), received.decode()


def test_a_terminal_sees_how_far_the_jobs_are(tmp_path: Path) -> None:
    work = "echo train.py: epoch JOB of 9; sleep 2.5"
    words = [str(RUN_JOBS), "--max-jobs-run", "1", "JOB=1:2", "log/train.JOB.log", *work.replace(";", " ; ").split()]
    code, seen = on_a_terminal(words, tmp_path)
    assert code == 0
    assert (
        "train: 0 of 2 jobs" in seen
        and "train: 1 of 2 jobs" in seen
        and "epoch 1 of 9" in seen
        and "epoch 2 of 9" in seen
    )
    assert seen.endswith("\r\x1b[K")  # the line is taken away at the end
    code, seen = on_a_terminal(words, tmp_path, SPEAKERKD_PROGRESS="false")
    assert code == 0 and seen == ""


def test_a_failure_on_a_terminal_shows_the_end_of_the_log(tmp_path: Path) -> None:
    words = [str(RUN_JOBS), "log/x.log", "echo", "the", "reason", ";", "sleep", "1.5", ";", "exit", "3"]
    code, seen = on_a_terminal(words, tmp_path)
    assert code == 1 and "| the reason" in seen


def test_no_progress_without_a_terminal(run, tmp_path):
    done = run("log/x.log", "sleep", "1.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [[RUN_JOBS, "x.log", "true"], [RUN_JOBS.with_name("validate_data_dir.sh"), "data"]])
def test_leftovers_of_killed_runs_are_removed(tmp_path: Path, words: list[str | Path]) -> None:
    """And the folders of live ones, of other machines, and of no one that is known, stay."""
    (tmp_path / "data").mkdir()
    host = subprocess.run(["bash", "-c", "echo $HOSTNAME"], capture_output=True, text=True).stdout.strip()
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = "speakerkd.jobs" if words[0] == RUN_JOBS else "speakerkd.validate"
    dead = tmp_path / f"{name}.{host}.{gone.pid}.aBc123"
    others = [tmp_path / f"{name}.{host}.{os.getpid()}.aBc123", tmp_path / f"{name}.elsewhere.{gone.pid}.aBc123"]
    for folder in (dead, *others):
        (folder / "1").mkdir(parents=True)
    subprocess.run(words, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True)
    assert sorted(tmp_path.glob(f"{name}.*")) == sorted(others)
