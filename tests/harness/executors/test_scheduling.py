"""Which run comes next, and what becomes of runs whose workers are lost."""

from imer_bench.harness.costs import Cost, cost_of, estimate, makespan, read_costs, remember
from imer_bench.harness.execute import Silent, execute
from imer_bench.harness.executors.events import Ended, Lost, Started
from imer_bench.harness.store import Store

from tiny import tiny_plan

MATCHED = [
    "comparison.regime=matched",
    "train={seeds=[1,2]}",
    'validation={conditions=["complete"]}',
    "methods.0={name='toys:TWO_STAGES', parameters={epochs=2, stage1_epochs=1}}",
]


class InTurn:
    """Workers that do what a script says, one event a call."""

    def __init__(self, at_a_time, end):
        self.at_a_time, self.end = at_a_time, end
        self.running, self.given, self.together = [], [], set()

    def room(self, running):
        return running < self.at_a_time

    def give(self, address):
        self.running.append(address)
        self.given.append(address)
        self.together.add(tuple(self.running))

    def events(self, seconds):
        if not self.running:
            return []
        address = self.running.pop(0)
        return [Started(address), self.end(address)]

    def stop(self, address):
        raise AssertionError("nothing is overdue")

    def close(self):
        self.closed = True


def finished(plan, store):
    """What a worker does: the run itself, in this process."""
    one = {run.address: run for run in plan.runs}

    def end(address):
        from dataclasses import replace

        execute(replace(plan, runs=(one[address],)), store, Silent())
        return Ended(address, "computed")

    return end


def test_runs_that_share_a_stage_are_not_given_out_together_before_it_is_there(tmp_path):
    plan, store = tiny_plan(tmp_path, *MATCHED), Store(tmp_path / "results")
    stage = {run.address: run.stage_address for run in plan.runs}
    assert len(plan.runs) == 6
    assert len(set(stage.values())) == 2
    some = InTurn(2, finished(plan, store))
    outcome = execute(plan, store, Silent(), workers=lambda: some)
    assert len(outcome.computed) == 6
    assert some.closed
    first_two = some.given[:2]
    assert {stage[address] for address in first_two} == set(stage.values())


def test_a_lost_run_is_tried_three_times_and_one_that_ended_in_silence_is_not_repeated(tmp_path):
    plan, store = tiny_plan(tmp_path, "train.seeds=[1, 2]"), Store(tmp_path / "results")
    doomed, silent = (run.address for run in plan.runs)
    compute = finished(plan, store)

    def end(address):
        if address == silent:
            compute(address)  # in the store, and killed before it could say so
        return Lost(address, "its worker was killed")

    some = InTurn(1, end)
    outcome = execute(plan, store, Silent(), workers=lambda: some)
    assert some.given.count(doomed) == 3
    assert some.given.count(silent) == 1
    assert {run.address: run.status for run in outcome.computed} == {doomed: "failed", silent: "finished"}
    assert "3 times" in outcome.failed[0].record["error"]["message"]


def test_a_lost_stack_is_given_out_anew_without_what_it_had_finished(tmp_path):
    settings = ["train.seeds=[1, 2, 3]", "compute.stack=3"]
    plan, store = tiny_plan(tmp_path, *settings), Store(tmp_path / "results")
    compute = finished(plan, store)
    first, *rest = addresses = [run.address for run in plan.runs]

    def end(address):
        one, *others = address.split("+")
        compute(one)
        if not others:
            return Ended(address, "computed")
        # The first of the stack is in the store; the other two are tried again, then the last one.
        return Lost(address, "its worker was killed")

    some = InTurn(1, end)
    outcome = execute(plan, store, Silent(), workers=lambda: some)
    assert some.given == ["+".join(addresses), "+".join(rest), rest[1]]
    assert sorted(run.address for run in outcome.computed) == sorted(addresses)
    assert not outcome.failed
    assert first in store.addresses()


def test_runs_of_a_stack_enter_as_they_end_and_what_is_held_elsewhere_is_waited_for(tmp_path):
    settings = ["train.seeds=[1, 2, 3]", "compute.stack=3"]
    plan, store = tiny_plan(tmp_path, *settings), Store(tmp_path / "results")
    one, two, three = (run.address for run in plan.runs)
    compute = finished(plan, store)

    class Stack(InTurn):
        def events(self, seconds):
            if not self.running:
                return []
            joint = self.running.pop(0)
            assert joint == f"{one}+{two}+{three}"
            for address in (one, two, three):
                compute(address)
            starts = [Started(one), Started(three)]
            return [*starts, Ended(two, "elsewhere"), Ended(three, "computed"), Ended(joint, "computed")]

    entered = []
    outcome = execute(plan, store, Silent(), on_run=entered.append, workers=lambda: Stack(1, None))
    assert [run.address for run in entered] == [three, one]
    assert outcome.reused == 1


def cost(**changes):
    known = {
        "method": "late_fusion", "variant": "other", "data_set": "synthetic", "utterances": 100, "epochs": 2,
        "device": "cpu", "device_name": "x86_64", "threads": 1, "precision": "float32", "epoch_s": 2.0,
        "rest_s": 1.0, "memory_mib": 300.0,
    }  # fmt: skip
    return Cost(**{**known, **changes})


def test_an_estimate_is_the_mean_of_like_runs_or_in_proportion_to_utterances(tmp_path):
    plan = tiny_plan(tmp_path)  # 3 epochs
    (run,) = plan.runs
    like = cost(variant=run.variant_address, utterances=run.spec.train_utterances)
    faster = cost(variant=run.variant_address, utterances=run.spec.train_utterances, epoch_s=1.0)
    exact = estimate(run, plan.execution, [like, faster, cost(epoch_s=900.0)])
    assert exact.exact
    assert exact.seconds == 1.0 + 3 * 1.5
    half = cost(utterances=2 * run.spec.train_utterances, memory_mib=500.0)
    rough = estimate(run, plan.execution, [half])
    assert not rough.exact
    assert rough.seconds == 1.0 + 3 * 2.0 / 2
    assert rough.memory_mib == 500.0
    for other in ({"method": "gcnet"}, {"device": "cuda"}, {"threads": 2}, {"precision": "bf16"}):
        assert estimate(run, plan.execution, [cost(**other)]) is None


def test_the_longest_runs_first_decide_the_time_with_several_workers():
    assert makespan([3.0, 3.0, 2.0, 2.0, 2.0], 1) == 12.0
    assert makespan([2.0, 3.0, 2.0, 3.0, 2.0], 2) == 7.0
    assert makespan([5.0], 8) == 5.0
    assert makespan([], 3) == 0.0


def test_five_costs_of_a_row_are_remembered_and_a_spoilt_file_is_no_obstacle(tmp_path):
    plan, store = tiny_plan(tmp_path), Store(tmp_path / "results")
    (stored,) = execute(plan, store, Silent()).computed
    (known,) = read_costs([store.folder])
    assert known == cost_of(stored.record)
    for _ in range(7):
        remember(store.folder, stored.record)
    assert len(read_costs([store.folder])) == 5
    (store.folder / "costs.json").write_text('[{"method": 3}, 7')
    assert read_costs([store.folder, tmp_path / "absent"]) == ()
    remember(store.folder, stored.record)
    assert len(read_costs([store.folder])) == 1
