"""The order of steps, whatever becomes of each: no store, no worker, only outcomes."""

import pytest

from worldrep.executors import Outcome
from worldrep.studies import Definition, Shard, expand
from worldrep.studies.scheduler import MAX_LOSSES, Scheduler, StepState, plan
from worldrep.tracking import StoredRun


@pytest.fixture(scope="module")
def graph():
    models = ("pt1", "pt1_ftwb1-1..7", "pt1_ftwb2-2", "pt1_ftwb2-13")
    return expand(Definition("ten", models, scale="smoke"))


@pytest.fixture
def scheduler(graph):
    return Scheduler(graph, {}, "parent")


def done(task):
    return Outcome(task.fingerprint, "done", run_id=f"run of {task.title}")


def work_through(scheduler, outcome=done):
    """Do everything with one worker; the titles in order."""
    titles = []
    while scheduler.unfinished:
        task = scheduler.next_job()
        titles.append(task.title)
        scheduler.job_ended(outcome(task))
    return titles


def all_done(graph):
    """States of a study that other drivers have finished."""
    run = StoredRun("theirs", "", "FINISHED", {}, {}, None, 0.0, 0.0)
    return {f: StepState(step, "done", run) for f, step in graph.steps.items()}


def test_all_steps_are_done_once_each_after_what_it_needs(graph, scheduler):
    titles = work_through(scheduler)
    assert sorted(titles) == sorted(step.title for step in graph.steps.values())
    place = {title: i for i, title in enumerate(titles)}
    for step in graph.steps.values():
        if step.needs:
            assert place[graph.steps[step.needs].title] < place[step.title]
    assert scheduler.counts() == dict(done=30, running=0, waiting=0, failed=0, blocked=0)


def test_a_step_is_given_the_run_that_it_stands_on(scheduler):
    base = scheduler.next_job()
    assert base.model_run == "" and scheduler.next_job() is None
    scheduler.job_ended(done(base))
    tuned = scheduler.next_job()
    assert tuned.model_run == "run of pt1 s42 pretrain" and tuned.parent == "parent"


def test_a_failure_blocks_what_needs_it_and_nothing_else(scheduler):
    def poisoned(task):
        failed = Outcome(task.fingerprint, "failed", message="poison")
        return failed if task.title == "ftwb1-3 s42 finetune" else done(task)

    titles = work_through(scheduler, poisoned)
    assert scheduler.counts() == dict(done=27, running=0, waiting=0, failed=1, blocked=2)
    assert "ftwb1-3 s42 evaluate" not in titles
    assert list(scheduler.messages.values()) == ["poison"]


def test_a_step_that_another_driver_repairs_is_done_and_blocks_nothing(graph, scheduler):
    base = scheduler.next_job()
    scheduler.job_ended(Outcome(base.fingerprint, "failed", message="poison"))
    assert scheduler.counts()["blocked"] == 29 and not scheduler.unfinished
    missing = {f: StepState(step, "missing", None) for f, step in graph.steps.items()}
    repaired = {base.fingerprint: all_done(graph)[base.fingerprint]}
    scheduler.add_finished(missing | repaired)
    assert scheduler.counts() == dict(done=1, running=0, waiting=29, failed=0, blocked=0)
    assert not scheduler.messages and len(work_through(scheduler)) == 29


def test_a_failed_base_blocks_everything(scheduler):
    work_through(scheduler, lambda task: Outcome(task.fingerprint, "failed", message="poison"))
    assert scheduler.counts() == dict(done=0, running=0, waiting=0, failed=1, blocked=29)


def test_a_lost_step_is_tried_again(scheduler):
    task = scheduler.next_job()
    scheduler.job_ended(Outcome(task.fingerprint, "lost", message="died"))
    again = scheduler.next_job()
    assert again == task
    scheduler.job_ended(done(again))
    assert scheduler.counts()["done"] == 1


def test_a_step_that_kills_its_workers_fails_in_the_end(scheduler):
    for _ in range(MAX_LOSSES):
        task = scheduler.next_job()
        scheduler.job_ended(Outcome(task.fingerprint, "lost", message="died"))
    assert scheduler.next_job() is None and not scheduler.unfinished
    assert scheduler.counts()["failed"] == 1 and scheduler.counts()["blocked"] == 29


def test_a_taken_step_is_waited_for(scheduler):
    task = scheduler.next_job()
    scheduler.job_ended(Outcome(task.fingerprint, "taken", run_id="theirs"))
    assert scheduler.next_job() is None and scheduler.unfinished
    assert scheduler.elsewhere == {task.fingerprint}


def test_the_costliest_branch_is_begun_first(graph, scheduler):
    scheduler.job_ended(done(scheduler.next_job()))
    first = graph.steps[scheduler.next_job().fingerprint]
    assert first.settings.ft.startswith("ftwb2")  # two tasks: the longest training


def test_a_shard_does_its_own_and_borrows_only_what_it_needs(graph):
    parts = [Shard(index, 4).steps_of(graph) for index in range(1, 5)]
    (base,) = [step for step in graph.steps.values() if not step.needs]
    for part in parts:
        titles = work_through(Scheduler(graph, {}, "parent", part))
        assert len(titles) == len(part | {base.fingerprint})


def test_a_plan_is_the_order_of_one_worker(graph, scheduler):
    assert [step.title for step in plan(graph, {})] == work_through(scheduler)
    assert plan(graph, all_done(graph)) == []


def test_what_other_shards_have_done_is_learnt(graph):
    mine = Shard(1, 2).steps_of(graph)
    scheduler = Scheduler(graph, {}, "parent", mine)
    work_through(scheduler)
    assert scheduler.counts()["waiting"] > 0 and scheduler.waits_for_others
    scheduler.add_finished(all_done(graph))
    assert scheduler.counts()["done"] == 30 and not scheduler.waits_for_others


def test_a_failed_base_leaves_what_is_done_done(graph):
    tuned = next(s for s in graph.steps.values() if s.stage == "finetune")
    states = {tuned.fingerprint: all_done(graph)[tuned.fingerprint]}
    scheduler = Scheduler(graph, states, "parent")
    base = scheduler.next_job()
    while base.title != "pt1 s42 pretrain":
        scheduler.job_ended(done(base))
        base = scheduler.next_job()
    scheduler.job_ended(Outcome(base.fingerprint, "failed", message="poison"))
    assert scheduler.state[tuned.fingerprint] == "done"
