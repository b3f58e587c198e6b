"""Proposals in Ray Tune's hands: what is tried after a kill, and how many at once."""

from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.search import Searcher, SearchGenerator

from didact.spec import SweepSpec, validate
from didact.tuning.journal import Entry, Journal
from didact.tuning.proposals import Proposals
from didact.tuning.searchers import Draw, RandomProposer, Seen
from didact.tuning.spaces import Space
from didact.tuning.tuner import settle

SWEEP = {"name": "s", "recipe": "r.yaml", "space": {"adapter.dropout": {"uniform": [0, 0.5]}}}


def proposals(folder: Path, total: int = 4, at_once: int = 2) -> Proposals:
    space = Space(validate(SweepSpec, SWEEP, "s.yaml").space)

    def seen(entry: Entry) -> Seen:
        return Seen(Draw(**entry.sample["draw"]), "ended" if entry.ended else "running")

    return Proposals(RandomProposer(space, 0), Journal(folder), seen, str, total=total, at_once=at_once)


def drawn(found: Any) -> Any:
    return found["draw"]["values"]["adapter.dropout"]


def test_no_more_than_asked_run_at_once_and_in_all(tmp_path: Path) -> None:
    search = proposals(tmp_path, total=3)
    assert search.suggest("a") and search.suggest("b") and search.suggest("c") is None
    search.on_trial_complete("a")
    assert search.suggest("c")
    search.on_trial_complete("b")
    assert search.suggest("d") == Searcher.FINISHED
    assert [entry.sample["draw"]["index"] for entry in Journal(tmp_path).entries()] == [0, 1, 2]


def test_after_a_kill_the_same_is_proposed(tmp_path: Path) -> None:
    search = proposals(tmp_path / "whole", at_once=4)
    whole = [drawn(search.suggest(str(number))) for number in range(4)]
    journal = Journal(tmp_path / "killed")
    first = proposals(tmp_path / "killed")
    first.suggest("a")
    first.save(str(tmp_path / "state"))
    lost = first.suggest("b")  # begun after Tune saved its state for the last time
    journal.end("a")
    second = proposals(tmp_path / "killed")
    second.restore(str(tmp_path / "state"))
    again = second.suggest("c")
    assert again is not None and lost is not None and again == lost
    second.on_trial_complete("a")
    later = second.suggest("d")
    assert later is not None and later["draw"]["index"] == 2
    assert [drawn(again), drawn(later)] == whole[1:3]


def test_a_trial_that_a_kill_took_leaves_no_trace_where_it_wrote_nothing(tmp_path: Path) -> None:
    search, journal = proposals(tmp_path / "journal", at_once=4), Journal(tmp_path / "journal")
    for name in ("a", "lost", "begun"):
        search.suggest(name)
    lost, begun = journal.find("lost"), journal.find("begun")
    assert lost is not None and begun is not None
    for name, entry in (("again", lost), ("once_more", begun)):
        journal.begin(name, entry.sample)
    (tmp_path / "trials" / "s-begun").mkdir(parents=True)
    for name in ("a", "again"):
        journal.end(name)
    known = {"a": None, "again": None, "once_more": "out of memory"}
    settle(journal, known, tmp_path / "trials", validate(SweepSpec, SWEEP, "s.yaml"))
    told = {entry.trial_id: (entry.ended, entry.error) for entry in journal.entries()}
    assert told.pop("begun") == (
        False,
        "the sweep was killed before Ray Tune had saved this trial; others replace it",
    )
    assert told == {"a": (True, None), "again": (True, None), "once_more": (False, "out of memory")}


def test_ray_tune_makes_trials_of_proposals_and_saves_what_is_live(tmp_path: Path) -> None:
    tune.register_trainable("nothing", lambda config: None)

    def generator(search: Proposals) -> SearchGenerator:
        made = SearchGenerator(search)
        assert made.set_search_properties("eval/loss", "min", {})
        return made

    first = generator(cloudpickle.loads(cloudpickle.dumps(proposals(tmp_path / "journal", total=3))))
    first.add_configurations({"s": {"run": "nothing", "num_samples": 3}})
    begun = [first.next_trial(), first.next_trial(), first.next_trial()]
    assert [trial and trial.config["draw"]["index"] for trial in begun] == [0, 1, None]
    first.save_to_dir(str(tmp_path), "session")

    second = generator(proposals(tmp_path / "journal", total=3))
    second.restore_from_dir(str(tmp_path))
    assert second.next_trial() is None, "both are still alive"
    second.on_trial_complete(begun[0].trial_id)
    third = second.next_trial()
    assert third.config["draw"]["index"] == 2 and second.is_finished()
    entries = {entry.trial_id: entry.sample for entry in Journal(tmp_path / "journal").entries()}
    assert {trial.trial_id: trial.config for trial in (*begun[:2], third)} == entries
