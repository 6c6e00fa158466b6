"""utils/slurm_jobs.sh: with a made-up sbatch what it asks for, and with a real Slurm, where there is one, what happens.

tests/slurm.sh starts that Slurm on localhost; `tests/slurm.sh install` gets it on Debian.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_run_jobs import on_a_terminal

ROOT = Path(__file__).resolve().parent.parent
SLURM_JOBS = ROOT / "utils/slurm_jobs.sh"
RUN_JOBS = ROOT / "utils/run_jobs.sh"


def run(folder: Path, *words: str, runner: Path = SLURM_JOBS, **env: str):
    return subprocess.run(
        [runner, *words],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def output(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if not line.startswith("#")]


# --- a made-up sbatch: writes its arguments down, runs the jobs at once, and Slurm then knows of none ---


@pytest.fixture
def made_up(tmp_path: Path):
    tools = {
        "sbatch": 'printf "%s\\n" "$@" > asked; range=$(printf "%s\\n" "$@" | sed -n "s/^--array=//p")\n'
        'for i in $(seq $(echo "${range:-1}" | sed "s/%.*//; s/-/ /")); do\n'
        '  SLURM_JOB_ID=9 SLURM_ARRAY_TASK_ID=$i bash "${@: -1}" || true\ndone\necho "77;cluster"\n',
        "squeue": "true\n",
        "sleep": "true\n",
    }
    (tmp_path / "bin").mkdir()
    for name, text in tools.items():
        (tmp_path / "bin" / name).write_text("#!/bin/bash\n" + text)
        (tmp_path / "bin" / name).chmod(0o755)

    def runner(*words: str):
        return run(tmp_path, *words, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")

    return runner


def asked(folder: Path) -> list[str]:
    """The arguments of sbatch, but for those that every call has."""
    words = (folder / "asked").read_text().splitlines()
    own = ("--parsable", "--job-name=", "--open-mode=", "--output=", "/")
    return [word for word in words if not word.startswith(own)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], []),
        (["--mem", "4G"], ["--mem=4G"]),
        (["--mem", "0"], []),
        (["--gpu", "2"], ["--gres=gpu:2"]),
        (["--gpu", "0"], []),
        (["--num-threads", "3"], ["--ntasks=1", "--cpus-per-task=3"]),
        (["--time", "1:00:00"], ["--time=1:00:00"]),
        (["JOB=1:4"], ["--array=1-4"]),
        (["JOB=3"], ["--array=3-3"]),
        (["--max-jobs-run", "2", "JOB=1:4"], ["--array=1-4%2"]),
        (["-tc", "2", "--max-jobs-run", "3", "JOB=2:4"], ["--array=2-4%2"]),
        (["-p", "long"], ["-p", "long"]),
        (["-V", "-q", "all.q", "-l", "arch=*", "-sync", "y", "-j", "y"], []),
    ],
)
def test_what_sbatch_is_asked_for(made_up, tmp_path, options, words):
    done = made_up(*options, "x.JOB.log", "true")
    assert done.returncode == 0, done.stderr
    assert asked(tmp_path) == words


def test_the_configuration(made_up, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/slurm.conf").write_text(
        "# as Kaldi's\ncommand sbatch --export=ALL  # all of it\noption gpu=* -p gpu --gres=gpu:$0,x:$0\n"
        "option gpu=0 -p cpu\ndefault gpu=0\noption mood=good --nice\n\n"
    )
    assert made_up("x.log", "true").returncode == 0
    assert asked(tmp_path) == ["--export=ALL", "-p", "cpu"]
    assert made_up("--gpu", "2", "x.log", "true").returncode == 0
    assert asked(tmp_path) == ["--export=ALL", "-p", "gpu", "--gres=gpu:2,x:2"]
    assert made_up("--mood", "good", "x.log", "true").returncode == 0
    assert sorted(asked(tmp_path)) == ["--export=ALL", "--nice", "-p", "cpu"]
    done = made_up("--mood", "bad", "x.log", "true")
    assert done.returncode == 1
    assert "option --mood bad has no meaning in conf/slurm.conf" in done.stderr
    (tmp_path / "mine").write_text("options\n")
    assert "mine: cannot read 'options'" in made_up("--config", "mine", "x.log", "true").stderr
    assert "no such file: other" in made_up("--config", "other", "x.log", "true").stderr


def test_the_log_is_that_of_run_jobs(made_up, tmp_path):
    words = ["JOB=1:2", "log/x.JOB.log", "printf", "[%s]", "JOB", "a b", 'c "JOB"', "|", "cat", ";", "(exit", "3)"]
    assert made_up(*words).returncode == 1
    logs = [(tmp_path / f"log/x.{job}.log").read_text() for job in (1, 2)]
    shutil.rmtree(tmp_path / "log")
    assert run(tmp_path, *words, runner=RUN_JOBS).returncode == 1
    for job, log in enumerate(logs, start=1):
        log, number = re.subn(r"# Running on .* as Slurm job 9\n", "", log)
        assert number == 1
        undated = [
            re.sub(r"Started.*|time=\d+|at .*", "", text) for text in (log, (tmp_path / f"log/x.{job}.log").read_text())
        ]
        assert undated[0] == undated[1]


def test_path_sh_is_sourced_there(made_up, tmp_path):
    (tmp_path / "path.sh").write_text("export FROM_PATH=yes\n")
    assert made_up("x.log", "echo", "$FROM_PATH").returncode == 0
    assert output(tmp_path / "x.log") == ["yes"]


def test_a_job_without_an_exit_status_has_failed(made_up, tmp_path):
    (tmp_path / "bin/sbatch").write_text("#!/bin/bash\necho 77\n")
    (tmp_path / "x.1.log").write_text("# Ended (code 0) at an earlier time\n")
    done = made_up("JOB=1:2", "x.JOB.log", "true")
    assert done.returncode == 1
    assert "2 / 2 failed, log is in x.*.log (failed: 1 2)" in done.stderr
    assert "ended without an exit status (killed?): 1 2" in done.stderr
    assert not (tmp_path / "x.1.log").exists()


def test_a_controller_that_is_away_is_waited_for(made_up, tmp_path):
    (tmp_path / "bin/sbatch").write_text('#!/bin/bash\ncp "${@: -1}" script\necho 77\n')
    (tmp_path / "bin/squeue").write_text(
        "#!/bin/bash\necho x >> asked_squeue\n[ $(wc -l < asked_squeue) -lt 3 ] || SLURM_JOB_ID=77 bash script\n"
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1\n"
    )
    done = made_up("x.log", "true")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked_squeue").read_text() == "x\n" * 3


def test_a_terminal_sees_how_far_the_jobs_are(made_up, tmp_path):
    """As with run_jobs.sh: how many have ended, and the last line of the newest log."""
    (tmp_path / "bin/sleep").unlink()
    start = '(for i in 1 2; do SLURM_JOB_ID=77 SLURM_ARRAY_TASK_ID=$i bash "${@: -1}"; done) &> /dev/null &'
    (tmp_path / "bin/sbatch").write_text(f"#!/bin/bash\n{start}\necho 77\n")
    (tmp_path / "bin/squeue").write_text("#!/bin/bash\necho 77_1\n")
    words = [
        str(SLURM_JOBS),
        "JOB=1:2",
        "log/train.JOB.log",
        *["echo", "train.py:", "epoch", "JOB", "of", "9", ";", "sleep", "2.5"],
    ]
    code, seen = on_a_terminal(words, tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert code == 0, seen
    for text in ("train: 0 of 2 jobs", "train: 1 of 2 jobs", "epoch 1 of 9", "epoch 2 of 9"):
        assert text in seen


def test_a_refusal_is_an_error(made_up, tmp_path):
    (tmp_path / "bin/sbatch").write_text("#!/bin/bash\necho sbatch: error: no >&2; exit 1\n")
    done = made_up("--mem", "9T", "x.log", "true")
    assert done.returncode == 1
    assert "sbatch: error: no" in done.stderr
    assert "refused the job (sbatch --mem=9T)" in done.stderr


def test_without_slurm(tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    done = run(tmp_path, "x.log", "true", PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert "no sbatch here" in done.stderr


# --- a real Slurm ---


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which Slurm is there."""
    folder = tempfile.mkdtemp(prefix="slurm")  # pytest's own folders have names too long for a socket
    started = subprocess.run(
        [ROOT / "tests/slurm.sh", "start", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if started.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"no Slurm here: {started.stderr.strip()}")
    yield {"SLURM_CONF": f"{folder}/slurm.conf"}
    subprocess.run([ROOT / "tests/slurm.sh", "stop", folder], check=True)
    shutil.rmtree(folder)


@pytest.mark.slurm
def test_jobs_run_there(slurm, tmp_path):
    options = ["--mem", "100M", "--time", "10", "--num-threads", "1", "--max-jobs-run", "2"]
    done = run(
        tmp_path, *options, "JOB=1:4", "log/x.JOB.log", "echo", "JOB", "a b", "$MINE", ">&2", MINE="mine", **slurm
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for job in range(1, 5):
        lines = (tmp_path / f"log/x.{job}.log").read_text().splitlines()
        assert lines[0] == f'# echo {job} "a b" $MINE >&2 '
        assert lines[1].startswith("# Started at ")
        assert re.fullmatch(r"# Running on \S+ as Slurm job \d+", lines[2])
        assert lines[4] == f"{job} a b mine"
        assert re.fullmatch(r"# Accounting: time=\d+ threads=1", lines[5])
        assert lines[6].startswith("# Ended (code 0) at ")
    assert sorted(path.name for path in (tmp_path / "log/q").iterdir()) == ["x.sh", "x.slurm"]


@pytest.mark.slurm
def test_a_single_job(slurm, tmp_path):
    assert run(tmp_path, "x.log", "touch", "made", **slurm).returncode == 0
    assert (tmp_path / "made").exists()


@pytest.mark.slurm
def test_failures_are_told(slurm, tmp_path):
    done = run(tmp_path, "JOB=1:3", "x.JOB.log", "echo", "this_is_JOB", ";", "exit", "$((JOB%2))", **slurm)
    assert done.returncode == 1
    assert "2 / 3 failed, log is in x.*.log (failed: 1 3)" in done.stderr
    assert "  | this_is_1" in done.stderr


@pytest.mark.slurm
def test_a_cancelled_job_has_failed(slurm, tmp_path):
    cancel = [
        "if",
        "[",
        "TASK",
        "=",
        "2",
        "]",
        ";",
        "then",
        "scancel",
        "${SLURM_ARRAY_JOB_ID}_TASK",
        ";",
        "sleep",
        "60;",
        "fi",
    ]
    done = run(tmp_path, "TASK=1:3", "x.TASK.log", *cancel, **slurm)
    assert done.returncode == 1
    assert "1 / 3 failed, log is in x.*.log (failed: 2)" in done.stderr
    assert "ended without an exit status (killed?): 2" in done.stderr
    assert "CANCELLED" in done.stderr


@pytest.mark.slurm
def test_what_cannot_be_had_is_an_error(slurm, tmp_path):
    done = run(tmp_path, "--gpu", "1", "x.log", "true", **slurm)
    assert done.returncode == 1
    assert "sbatch refused the job (sbatch --gres=gpu:1)" in done.stderr


@pytest.mark.slurm
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_jobs(slurm, tmp_path, sent):
    env = {**os.environ, **slurm}
    words = [str(SLURM_JOBS), "JOB=1:2", "x.JOB.log", "sleep", "300"]
    process = subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)

    def queue() -> str:
        return subprocess.run(["squeue", "-h"], env=env, capture_output=True, text=True, check=True).stdout

    def wait_until(true) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    wait_until((tmp_path / "x.1.log").exists)
    process.send_signal(sent)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == -sent
    assert re.search(r"Slurm job \d+ was cancelled", error)
    wait_until(lambda: queue() == "")
