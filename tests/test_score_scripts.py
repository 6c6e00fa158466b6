import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from score_data import GOLDEN, golden_folder, script, write_vectors

from speakerkd.score.evaluate import COLUMNS, add_to_metrics, interval_notes, read_metrics
from speakerkd.score.trials import read_scores, read_trials

score, compare, collect = script("score"), script("compare_scores"), script("collect_results")


@pytest.fixture
def small(tmp_path: Path, rng: np.random.Generator) -> Path:
    """8 speakers with 4 utterances each, all pairs, and a cohort of 30 others."""
    centres = rng.normal(size=(8, 12))
    vectors = {f"s{who}-{take}": centres[who] + 0.7 * rng.normal(size=12) for who in range(8) for take in range(4)}
    write_vectors(tmp_path / "x", vectors)
    write_vectors(tmp_path / "cohort", {f"c{number:02d}": rng.normal(size=12) for number in range(30)})
    names = sorted(vectors)
    pairs = [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]
    kind = {True: "target", False: "nontarget"}
    (tmp_path / "trials").write_text("".join(f"{a} {b} {kind[a[:2] == b[:2]]}\n" for a, b in pairs))
    (tmp_path / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in names))
    return tmp_path


def run_score(folder: Path, *options: str, out: str = "sys/scores") -> Path:
    x = str(folder / "x.scp")
    score.main(
        ["--num-bootstrap", "100", "--plots", "false", *options, str(folder / "trials"), x, x, str(folder / out)]
    )
    return folder / out


def test_golden_cosine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = golden_folder(tmp_path)
    x, trials = str(folder / "exp/sys/xvectors_test/xvector.scp"), str(folder / "data/test/trials")
    out = folder / "exp/sys/scores"
    score.main(["--enroll-spk2utt", str(folder / "data/test/enroll_spk2utt"), trials, x, x, str(out)])
    golden = read_trials(GOLDEN / "trials")
    found, expected = (read_scores(path, golden)[0] for path in (out / "trials.cosine", GOLDEN / "scores_cosine"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    printed = capsys.readouterr().out
    assert "52 target and 988 nontarget trials of 20 speakers; 0 lost" in printed
    assert (
        "compute-eer: 19.23" in printed
        and "20 test speakers are few" in printed
        and "calibration: cross-validated" in printed
    )
    (row,) = read_metrics(out / "metrics.tsv")
    assert tuple(row) == COLUMNS and float(row["eer_kaldi"]) == pytest.approx(19.2308)
    assert float(row["eer_low"]) < float(row["eer"]) < float(row["eer_high"])
    for name in ("det", "hist"):
        assert (out / f"trials.cosine.{name}.png").read_bytes()[:4] == b"\x89PNG"
    # Scores made elsewhere are judged in the same way.
    models = ["--enroll-spk2utt", str(folder / "data/test/enroll_spk2utt"), "--plots", "false"]
    score.main(["--scores", str(GOLDEN / "scores_cosine"), *models, trials, str(folder / "again/scores")])
    (again,) = read_metrics(folder / "again/scores/metrics.tsv")
    assert {k: v for k, v in again.items() if "threshold" not in k} | {"scoring": ""} == {
        k: v for k, v in row.items() if "threshold" not in k
    } | {"scoring": ""}


def test_mean_and_norms_make_rows_and_files(small: Path) -> None:
    out = run_score(small)
    (small / "mean.vec").write_text(" [ " + "0.1 " * 12 + "]\n")
    run_score(small, "--mean", str(small / "mean.vec"), "--name", "cosine_mean")
    for norm in ("asnorm", "snorm"):
        run_score(small, "--norm", norm, "--cohort", str(small / "cohort.scp"), "--top-n", "10")
    run_score(small)  # takes the place of its row
    assert [row["scoring"] for row in read_metrics(out / "metrics.tsv")] == ["asnorm", "cosine", "cosine_mean", "snorm"]
    files = [(out / f"trials.{name}").read_text() for name in ("asnorm", "cosine", "cosine_mean", "snorm")]
    assert len(set(files)) == 4
    assert all(re.fullmatch(r"\S+ \S+ -?\d\S*", line) for text in files for line in text.splitlines())


def test_stored_calibration(small: Path) -> None:
    out = run_score(small)
    assert read_metrics(out / "metrics.tsv")[0]["calibration"] == "cross-validated"
    run_score(small, "--calibration", str(out / "trials.cosine.calibration"), out="other")
    (row,) = read_metrics(small / "other/metrics.tsv")
    assert row["calibration"] == "stored" and float(row["cllr"]) >= float(row["min_cllr"])
    with pytest.raises(ValueError, match="trained on these same trials"):
        run_score(small, "--calibration", str(out / "trials.cosine.calibration"))


def test_missing_and_zero_vectors_are_listed(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (small / "x.scp").read_text().splitlines(keepends=True)
    (small / "x.scp").write_text("".join(lines[1:]))
    with pytest.raises(
        ValueError, match=r"31 of 496 trials have no score.*s0-0 s0-1 no-vector-in-.*more than --max-lost 5 %"
    ):
        run_score(small)
    out = run_score(small, "--max-lost", "10")
    assert "31 lost" in capsys.readouterr().out
    lost = (out / "trials.cosine.lost").read_text().splitlines()
    assert len(lost) == 31 and lost[0] == f"s0-0 s0-1 no-vector-in-{small / 'x.scp'}"
    assert read_metrics(out / "metrics.tsv")[0]["lost"] == "31"
    write_vectors(
        small / "x", {f"s{who}-{take}": np.eye(12)[who] * (who + take > 0) for who in range(8) for take in range(4)}
    )
    run_score(small, "--max-lost", "10")
    assert "zero-vector-in" in (out / "trials.cosine.lost").read_text()
    run_score(small, "--max-lost", "10", "--norm", "snorm", "--cohort", str(small / "cohort.scp"))
    assert (out / "trials.snorm.lost").read_text() == (out / "trials.cosine.lost").read_text()
    write_vectors(small / "x", {f"s{who}-{take}": np.eye(12)[who] for who in range(8) for take in range(4)})
    run_score(small)
    assert not (out / "trials.cosine.lost").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--norm", "znorm"], "--norm znorm: none, asnorm and snorm"),
        (["--norm", "asnorm"], "need a --cohort"),
        (["--cohort", "cohort.scp"], "--cohort needs one of them"),
        (["--enroll-cohort", "cohort.scp"], "--cohort-spk2utt and --enroll-cohort describe a cohort"),
        (["--norm", "asnorm", "--cohort", "cohort.scp"], "30 vectors, fewer than --top-n 300"),
        (["--norm", "snorm", "--cohort", "x.scp"], "32 of the cohort's ids are also in the trials"),
        (["--utt2spk", "none"], "none: no such file.*--utt2spk"),
        (["--mean", "short.vec"], "has 2 dimensions, the vectors of .* have 12"),
        (["--mean", "none.vec"], "can't be read"),
        (["--enroll-spk2utt", "spk2utt"], "none of the"),
        (["--topn", "3"], "no option --topn"),
    ],
)
def test_bad_options(small: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(small)
    (small / "short.vec").write_text(" [ 1 2 ]\n")
    (small / "spk2utt").write_text("m s0-0\n")
    with pytest.raises(ValueError, match=message):
        run_score(small, *options)


def test_what_belongs_to_earlier_scores_goes(small: Path) -> None:
    out = run_score(small, "--plots", "true")
    assert (out / "trials.cosine.calibration").exists() and (out / "trials.cosine.det.png").exists()
    write_vectors(small / "x", {f"s{who}-{take}": np.eye(12)[0] for who in range(8) for take in range(4)})
    run_score(small)  # a collapsed model: all scores are the same
    assert not list(out.glob("trials.cosine.*"))


def test_trials_of_models_and_utterances(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    (small / "spk2utt").write_text("m0 s0-0 s0-1\nm1 s1-0 s1-1\n")
    (small / "trials").write_text(
        "m0 s0-1 target\nm0 s0-2 target\nm0 s1-2 nontarget\ns1-0 s1-2 target\ns1-0 s0-2 nontarget\n"
    )
    out = run_score(small, "--enroll-spk2utt", str(small / "spk2utt"))
    assert len((out / "trials.cosine").read_text().splitlines()) == 5 and not (out / "trials.cosine.lost").exists()
    assert "1 trials compare an utterance with itself or its own model" in caplog.text
    (small / "spk2utt").write_text("m0 s0-0 s0-1\nm1 s1-0 s2-1\n")
    with pytest.raises(ValueError, match=r"1 enrolment models have utterances of several speakers, by .*utt2spk: m1"):
        run_score(small, "--enroll-spk2utt", str(small / "spk2utt"))


def test_no_utt2spk(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "utt2spk").unlink()
    with pytest.raises(ValueError, match=r"utt2spk: no such file; .*--num-bootstrap 0"):
        run_score(small)
    out = run_score(small, "--num-bootstrap", "0")
    assert "no intervals" in capsys.readouterr().out
    assert read_metrics(out / "metrics.tsv")[0]["calibration"] == "none"


def test_two_systems_of_other_dimensions(small: Path) -> None:
    write_vectors(small / "y", {f"s{who}-{take}": np.ones(5) for who in range(8) for take in range(4)})
    trials, x, y = (str(small / name) for name in ("trials", "x.scp", "y.scp"))
    with pytest.raises(ValueError, match=r"12 dimensions .* can't be compared with 5 .*map_vectors"):
        score.main([trials, x, y, str(small / "out")])


def test_no_traceback_for_users(small: Path, recipe: Path, sh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = sh("local/score.py", small / "none", small / "x.scp", small / "x.scp", small / "out", fails=True)
    assert done.stderr.startswith("score.py: error:") and "can't be read" in done.stderr
    assert "the arguments are" in sh("local/score.py", "a", fails=True).stderr
    for name in ("score.py", "compare_scores.py", "collect_results.py", "plda_backend.py", "score_plda.sh"):
        assert "Usage: local/" + name in sh(f"local/{name}", "--help").stdout


@pytest.mark.parametrize("kind", ["collapsed", "perfect", "hopeless"])
def test_extreme_scores(small: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    trials = read_trials(small / "trials")
    values = {"collapsed": np.ones(496), "perfect": trials.target + 0.0, "hopeless": 1.0 - trials.target}[kind]
    noise = 0 if kind == "collapsed" else 1e-3 * np.random.default_rng(0).normal(size=496)
    (small / "scores").write_text("".join(f"{trials.pair(i)} {value}\n" for i, value in enumerate(values + noise)))
    score.main(["--num-bootstrap", "50", "--scores", str(small / "scores"), str(small / "trials"), str(small / "out")])
    (row,) = read_metrics(small / "out/metrics.tsv")
    assert float(row["eer"]) == {"collapsed": 50, "perfect": 0, "hopeless": 100}[kind]
    assert float(row["min_dcf_0.01"]) == {"perfect": 0}.get(kind, 1)
    assert (small / "out/trials.scores.det.png").exists() == (kind != "collapsed")


def test_scores_from_elsewhere_can_not_be_normalised(small: Path) -> None:
    a = run_score(small) / "trials.cosine"
    for words in (["--norm", "asnorm", "--cohort", "c.scp"], ["--mean", "m.vec"]):
        with pytest.raises(ValueError, match=rf"--{words[-2].strip('-')}.*with --scores there are only scores"):
            score.main([*words, "--scores", str(a), str(small / "trials"), str(small / "again")])


def test_compare(small: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator) -> None:
    out = run_score(small)
    trials = read_trials(small / "trials")
    a = out / "trials.cosine"
    scores = read_scores(a, trials)[0]
    worse = small / "worse"
    lines = [f"{trials.pair(i)} {value + rng.normal():.6g}\n" for i, value in enumerate(scores.tolist())]
    worse.write_text("".join(lines))
    capsys.readouterr()
    compare.main([str(small / "trials"), str(worse), str(a)])
    printed = capsys.readouterr().out
    assert re.search(r"EER %.*-\d.*B is better", printed) and "8 speakers are few" in printed
    eers = [float(each) for each in re.findall(r"EER % +(\S+) +(\S+)", printed)[0]]
    ratio, low, high = (float(each) for each in re.findall(r"B : A +(\S+)   \[(\S+), (\S+)\]", printed)[0])
    assert ratio == pytest.approx(eers[1] / eers[0], abs=0.01) and low < ratio < high < 1
    compare.main([str(small / "trials"), str(a), str(a)])
    printed = capsys.readouterr().out
    assert re.search(r"B : A +1\.00   \[1\.00, 1\.00\]", printed)
    assert re.search(r"EER % .* \+0\.00 .* 1\.000   no clear difference", printed)
    fewer = [small / "fewer", small / "fewer too"]
    fewer[0].write_text("".join(lines[5:]))
    fewer[1].write_text("".join(a.read_text().splitlines(keepends=True)[5:]))
    compare.main([str(small / "trials"), *map(str, fewer)])  # both lack the same trials
    assert "491 trials" in capsys.readouterr().out
    worse.write_text("".join(lines[5:]) + "x y 1\n")
    with pytest.raises(
        ValueError, match=r"worse: 5 of the trials are missing, 1 lines belong to no trial.*--intersect true.* 491"
    ):
        compare.main([str(small / "trials"), str(worse), str(a)])
    compare.main(["--intersect", "true", "--det", str(small / "det.png"), str(small / "trials"), str(worse), str(a)])
    assert "491 trials" in capsys.readouterr().out and (small / "det.png").exists()


def test_collect(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for system, mean in (("base", ""), ("kd_s0", "0.1 "), ("kd_s1", "0.3 ")):
        options = ["--mean", str(small / "mean.vec")] if mean else []
        (small / "mean.vec").write_text(" [ " + mean * 12 + "]\n")
        run_score(small, *options, "--name", "cosine", out=f"exp/{system}/scores")
    capsys.readouterr()
    collect.main([str(small / "exp")])
    first, second = capsys.readouterr().out.split("\nMean and standard deviation over seeds of the training:\n\n")
    assert [line.split("|")[1].strip() for line in first.splitlines()[2:]] == ["base", "kd_s0", "kd_s1"]
    values = [float(read_metrics(small / f"exp/kd_s{seed}/scores/metrics.tsv")[0]["eer"]) for seed in (0, 1)]
    cells = [cell.strip() for cell in second.splitlines()[2].split("|")]
    assert cells[1:6] == ["kd", "trials", "cosine", "2", f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"]
    assert len({len(line) for line in first.strip().splitlines()}) == 1
    collect.main(["--output", str(small / "table.md"), str(small / "exp")])
    assert (small / "table.md").read_text().startswith("| system | trials")
    assert {line.split("|")[-2].strip() for line in first.splitlines()[2:5]} == {"cross-validated"}
    with pytest.raises(ValueError, match="no such folder"):
        collect.main([str(small / "none")])
    # Scores of an earlier model are left out, unless the system is named.
    (small / "exp/base/final.pt").touch()
    os.utime(small / "exp/base/final.pt", (4e9, 4e9))
    collect.main([str(small / "exp")])
    assert "| base " not in capsys.readouterr().out
    collect.main([str(small / "exp/base"), str(small / "exp/kd_s0")])
    printed = capsys.readouterr().out
    assert "| base " in printed and "| kd_s0 " in printed and "kd_s1" not in printed
    # ... each list of trials by itself
    shutil.copy(small / "trials", small / "trials_E")
    rows = read_metrics(small / "exp/kd_s1/scores/metrics.tsv")
    add_to_metrics(small / "exp/kd_s1/scores/metrics.tsv", {**rows[0], "trials": "trials_E"})
    shutil.copy(small / "exp/kd_s1/scores/trials.cosine", small / "exp/kd_s1/scores/trials_E.cosine")
    (small / "exp/kd_s1/final.pt").touch()
    os.utime(small / "exp/kd_s1/scores/trials.cosine", (4e9, 4e9))
    os.utime(small / "exp/kd_s1/final.pt", (3e9, 3e9))
    collect.main([str(small / "exp")])
    assert "trials_E" not in (printed := capsys.readouterr().out) and "| kd_s1 " in printed
    with pytest.raises(ValueError, match=r"no \*/scores/metrics.tsv with such rows"):
        collect.main(["--scoring", "plda", str(small / "exp")])


def test_metrics_file_is_guarded(tmp_path: Path) -> None:
    path = tmp_path / "metrics.tsv"
    path.write_text("something else\n")
    with pytest.raises(ValueError, match=r"not a metrics\.tsv"):
        add_to_metrics(path, {"trials": "t", "scoring": "s"})
    assert path.read_text() == "something else\n"
    path.write_text("trials\tscoring\teer\nt\ts\t1.5\nt\tp\tone\n")
    with pytest.raises(ValueError, match=r"metrics\.tsv:3: eer is 'one', not a number; remedy: run score\.py again"):
        read_metrics(path)
    path.write_text("trials\tscoring\teer\nt\ts\n")
    with pytest.raises(ValueError, match=r"metrics\.tsv:2: has 2 fields, the first line has 3"):
        read_metrics(path)


@pytest.mark.parametrize(("speakers", "line"), [(2, "2 test speakers are few"), (60, "are few for minDCF"), (100, "")])
def test_a_note_says_that_speakers_are_few(speakers: int, line: str) -> None:
    row = {"speakers": speakers, "nontarget": 10**6, "num_bootstrap": 1000, "eer": 0.0, "eer_low": float("nan")}
    assert any("no trial is wrong at the best threshold" in note for note in interval_notes(row))
    notes = interval_notes(row | {"eer": 5.0, "eer_low": 3.0})
    assert len(notes) == bool(line) and line in " ".join(notes)
    without = interval_notes({"speakers": 0, "num_bootstrap": 0, "eer": 5.0, "eer_low": float("nan")})
    assert without == ["There are no intervals. They need utt2spk and a --num-bootstrap above 0."]


def test_a_note_says_that_nontarget_trials_are_few_for_a_prior() -> None:
    row = {"speakers": 500, "nontarget": 3000, "num_bootstrap": 1000, "eer": 5.0, "eer_low": 3.0}
    (note,) = interval_notes(row)
    assert note.startswith("minDCF(0.001): 3000 nontarget trials are few. One false alarm adds 0.33 to it, so")
    assert note.endswith("interval too narrow. Take 24975 nontarget trials or more.")
    assert len(interval_notes(row | {"nontarget": 2000})) == 2  # of minDCF(0.01) too
    (note,) = interval_notes(row | {"nontarget": 24975})
    assert "holds the truth in 90 to 95 % of cases" in note and "Take 99900 or more" in note
    assert not interval_notes(row | {"nontarget": 99900})
    assert not interval_notes(row | {"eer_low": float("nan"), "num_bootstrap": 0})[1:]


def test_trials_without_labels(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Kaldi has them: scores like those of the labelled trials, and no error rates."""
    labelled = (run_score(small) / "trials.cosine").read_text()
    pairs = [line.split()[:2] for line in (small / "trials").read_text().splitlines()]
    (small / "pairs").write_text("".join(f"{one} {other}\n" for one, other in pairs))
    (small / "utt2spk").unlink()
    capsys.readouterr()
    x = str(small / "x.scp")
    score.main([str(small / "pairs"), x, x, str(small / "out")])
    assert (small / "out/pairs.cosine").read_text() == labelled
    assert sorted(path.name for path in (small / "out").iterdir()) == ["pairs.cosine"]
    assert "496 trials without labels" in (printed := capsys.readouterr().out) and "no error rates" in printed
    score.main(["--scores", str(small / "out/pairs.cosine"), str(small / "pairs"), str(small / "again")])
    assert (small / "again/pairs.scores").read_text() == labelled
    with pytest.raises(ValueError, match="two fields, without target or nontarget; error rates need labels"):
        read_trials(small / "pairs")
    (small / "pairs").write_text("s0-0 s0-1\ns0-0 s1-0 target\n")
    with pytest.raises(ValueError, match="pairs:2: 's0-0 s1-0 target' is not 'enrol test', two fields"):
        score.main([str(small / "pairs"), x, x, str(small / "out")])
