"""When blocks open and close, what they leave to whom, and what is refused; with the real libraries."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.integrations.digits import optimizer_of
from torchturbo import PROFILES, Profile, turbo
from torchturbo._sources import UNNAMED
from torchturbo._turbo import in_force
from torchturbo.errors import MissingPackageError, OptionNameError, TargetError, UnsupportedHere
from torchturbo.integrations import _needed
from torchturbo.integrations._around import Around, Beside, Blocks, Within, expect, left

LEFT = left(autocast="a framework", accumulate="its own")


class Failed(Exception):
    pass


class Thing:
    def run(self) -> tuple[bool, int]:
        return torch.is_anomaly_enabled(), len(in_force())


def around(profile: str, **options: Any) -> Around:
    return Around(("no_such_library",), profile, False, options, {})


class Callback(Blocks):
    """As callbacks of libraries are."""

    _libraries = ("no_such_library",)


def _nothing(thing: object) -> tuple[tuple[str, str], ...]:
    return ()


# ----------------------------------------------------------------------------------------------- what is left to others


class TestBeside:
    def test_what_is_left_is_not_touched_whoever_asks_for_it(self) -> None:
        with Beside("fast", LEFT, autocast="fp16", init_scale=8.0, accumulate=4, anomaly=True) as active:
            assert not torch.is_autocast_enabled("cpu")
            assert torch.is_anomaly_enabled()
            assert active.scaler is None
            assert active.is_last_micro_step
        left = {d.name: d.refused for d in active.plan.refused if d.left_to}
        assert left == {
            "accumulate": "left to its own",
            "autocast": "left to a framework",
            "init_scale": "left to a framework",
        }

    def test_the_report_says_whom_it_is_left_to(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Beside("fast", LEFT) as active:
            report = active.report()
        row = report["autocast"]
        assert (row.effective, row.reason, row.origin) == (False, "left to a framework", "profile fast")
        assert "left to a framework" in capsys.readouterr().out
        assert "autocast" not in report.blocks[-1].left_out  # the machine could do it

    def test_strict_is_about_the_machine_alone(self) -> None:
        with Beside(Profile("mine", autocast="bf16"), LEFT, strict=True, anomaly=True):
            assert torch.is_anomaly_enabled()
        with pytest.raises(UnsupportedHere, match="cudnn_benchmark") as raised, Beside("fast", LEFT, strict=True):
            pass
        assert "autocast" not in str(raised.value)

    def test_another_turbo_of_the_same_profile_is_not_affected(self) -> None:
        with Beside("exact", LEFT):
            pass
        with turbo("exact") as active:
            assert [d.name for d in active.plan.refused if d.left_to] == []

    def test_it_pickles_and_copies(self) -> None:
        made = Beside("fast", LEFT, anomaly=True)
        for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            assert (again._left_to, repr(again)) == (LEFT, repr(made))


class TestNeeded:
    @pytest.fixture
    def brought(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """The distributions that are installed, of which an extra wants two."""
        versions: dict[str, str] = {}

        def version(name: str) -> str:
            if name not in versions:
                raise PackageNotFoundError(name)
            return versions[name]

        wanted = ['one>=2.5; extra == "lib"', "two[more]>=1.10 ; extra == 'lib'", 'three>=9; extra == "library"']
        monkeypatch.setattr(_needed.metadata, "version", version)
        monkeypatch.setattr(_needed.metadata, "requires", lambda name: wanted)
        return versions

    def test_what_is_not_there_is_named_with_what_to_type(self, brought: dict[str, str]) -> None:
        brought["one"] = "2.5.1"
        says = r"integrations\.lib needs two>=1\.10, which is not installed: pip install 'torchturbo\[lib\]'"
        with pytest.raises(MissingPackageError, match=says), _needed.needed("lib"):
            raise ImportError("no two")

    def test_what_is_too_old_is_named_with_what_to_type(self, brought: dict[str, str]) -> None:
        brought |= {"one": "2.5", "two": "1.9.3"}
        says = r"needs two>=1\.10, and 1\.9\.3 is installed: pip install --upgrade 'torchturbo\[lib\]'"
        with pytest.raises(MissingPackageError, match=says), _needed.needed("lib"):
            pass
        brought["too"] = "1.10.0rc1"
        with _needed.needed("lib", "too"):
            pass

    def test_another_error_of_a_library_that_is_there_is_its_own(self, brought: dict[str, str]) -> None:
        brought |= {"one": "3", "two": "2"}
        with pytest.raises(ImportError, match="broken") as raised, _needed.needed("lib"):
            raise ImportError("broken")
        assert type(raised.value) is ImportError

    def test_where_torchturbo_is_not_installed_its_extra_has_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(name: str) -> Any:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(_needed.metadata, "version", nothing)
        monkeypatch.setattr(_needed.metadata, "requires", nothing)
        with pytest.raises(MissingPackageError, match=r"integrations\.lib needs lib, which"), _needed.needed("lib"):
            raise ImportError
        with _needed.needed("lib"):
            pass

    @pytest.mark.parametrize("library", ["lightning", "transformers", "accelerate", "ignite", "skorch"])
    def test_each_library_says_so(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (library, "pytorch_lightning", "lightning.pytorch", f"{library}.engine", f"{library}.callbacks"):
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"torchturbo.integrations.{library}", raising=False)
        monkeypatch.setattr(_needed, "_version", lambda name: None)
        with pytest.raises(MissingPackageError, match=rf"{library} needs .*{library}.*'torchturbo\[{library}\]'"):
            importlib.import_module(f"torchturbo.integrations.{library}")


class TestAround:
    def test_the_line_that_runs_the_library_is_where(self) -> None:
        made = around("exact")
        made.open(())
        try:
            assert made.active is not None
            assert made.active.where.startswith(__file__)
        finally:
            made.close()
        assert made.active is None
        made.close()

    def test_a_run_that_ended_unsaid_is_closed_by_the_next(self) -> None:
        made = around("debug")
        made.open(())
        made.open(LEFT)
        assert len(in_force()) == 1
        made.close(Failed())
        assert in_force() == ()

    def test_scaling_goes_on_from_run_to_run(self) -> None:
        made = around("fast", autocast="fp16")
        scalers = []
        for _ in range(2):
            with made.block(()):
                scalers.append(made.active and made.active.scaler)
        assert scalers[0] is scalers[1] is not None

    def test_a_method_in_blocks_is_picklable_and_not_copied_unseen(self) -> None:
        thing = Thing()
        within = Within(thing, "run", around("debug"), _nothing)
        assert thing.run() == pickle.loads(pickle.dumps(thing)).run() == (True, 1)
        with pytest.raises(TargetError, match="run of an object that torchturbo is around cannot be copied"):
            copy.deepcopy(thing)
        outer = Within(thing, "run", around("exact"), _nothing)
        assert thing.run() == (True, 2)
        within.take_off()
        assert vars(thing) == {"run": outer}
        outer.take_off()
        within.take_off()
        assert (vars(thing), thing.run()) == ({}, (False, 0))

    def test_nobody_has_a_report_outside_of_a_run(self) -> None:
        with pytest.raises(RuntimeError, match="no run is under way"):
            Callback("fast").report()

    def test_a_callback_tells_of_the_block_that_is_open(self, capsys: pytest.CaptureFixture[str]) -> None:
        its = pickle.loads(pickle.dumps(Callback("debug")))
        with its._around.block(LEFT):
            assert its.report()["autocast"].reason == "left to a framework"
            assert "autocast" in capsys.readouterr().out
        assert its.active is None

    def test_what_is_of_another_class_is_refused_by_name(self) -> None:
        expect(Thing(), (Callback, Thing), "attach takes a Thing")
        with pytest.raises(TargetError, match="attach takes a Thing, and got str"):
            expect("thing", Thing, "attach takes a Thing")

    def test_a_bad_option_is_told_at_once(self) -> None:
        with pytest.raises(OptionNameError, match="did you mean 'anomaly'"):
            around("fast", anomly=True)

    def test_the_default_profile_stays_the_default_in_copies(self) -> None:
        assert copy.deepcopy(UNNAMED) is pickle.loads(pickle.dumps(UNNAMED)) is UNNAMED


# ----------------------------------------------------------------------------------------------------------- Lightning


class TestLightning:
    @pytest.fixture
    def callback(self) -> type[Any]:
        pytest.importorskip("lightning.pytorch")
        from torchturbo.integrations.lightning import TurboCallback

        return TurboCallback

    @staticmethod
    def trainer(precision: str = "32-true") -> Any:
        return SimpleNamespace(precision_plugin=SimpleNamespace(precision=precision))

    def test_a_run_is_a_block(self, callback: Any, capsys: pytest.CaptureFixture[str]) -> None:
        its = callback("debug")
        its.setup(self.trainer("bf16-mixed"), None, "fit")
        assert torch.are_deterministic_algorithms_enabled()
        assert its.report()["autocast"].reason == "left to Lightning's precision='bf16-mixed'"
        its.teardown(None, None, "fit")
        assert its.active is None
        assert not torch.are_deterministic_algorithms_enabled()

    @pytest.mark.parametrize("error", [Failed("mine"), KeyboardInterrupt()])
    def test_a_run_that_ends_with_an_error_is_closed(self, callback: Any, error: BaseException) -> None:
        its = callback("debug")
        its.setup(self.trainer(), None, "fit")
        its.on_exception(None, None, error)
        assert in_force() == ()

    def test_micro_batches_are_lightnings(self, callback: Any) -> None:
        with pytest.raises(TargetError, match=r"accumulate=4 .* write Trainer\(accumulate_grad_batches=...\)"):
            callback("fast", accumulate=4)

    def test_anomalies_are_lightnings_which_looks_for_them_or_does_not(self, callback: Any) -> None:
        with pytest.raises(TargetError, match=r"anomaly=True .* write Trainer\(detect_anomaly=...\)"):
            callback("fast", anomaly=True)
        its = callback("debug")
        its.setup(self.trainer(), None, "fit")
        assert not torch.is_anomaly_enabled()
        its.teardown(None, None, "fit")

    def test_determinism_that_was_asked_for_before_stays(self, callback: Any) -> None:
        its = callback("fast")
        with turbo("exact", deterministic=True):  # as Trainer(deterministic=True) does when it is made
            its.setup(self.trainer(), None, "fit")
            left = {d.name: d.refused for d in its.active.plan.refused if d.left_to}
            its.teardown(None, None, "fit")
        assert left == {
            "cudnn_benchmark": "left to who asked for determinism: Trainer(deterministic=True), or the code"
        }

    def test_it_pickles_as_processes_need_it(self, callback: Any) -> None:
        its = pickle.loads(pickle.dumps(callback("debug", num_threads=1)))
        its.setup(self.trainer(), None, "fit")
        assert torch.are_deterministic_algorithms_enabled()
        its.teardown(None, None, "fit")

    def test_a_checkpoint_of_lightnings_holds_the_scale(self, callback: Any) -> None:
        its, other = callback("fast", autocast="fp16"), callback("fast", autocast="fp16")
        assert callback("fast", autocast=None).state_dict() == {}
        for each in (its, other):
            each.setup(self.trainer(), None, "fit")
        its.active.scaler.load_state_dict({**its.active.scaler.state_dict(), "scale": 8.0})
        other.load_state_dict(its.state_dict())  # as Lightning does, once the block is open
        assert other.active.scaler.get_scale() == 8.0
        for each in (other, its):
            each.teardown(None, None, "fit")
        before = callback("fast", autocast="fp16")
        before.load_state_dict(its.state_dict())
        before.setup(self.trainer(), None, "fit")
        assert before.active.scaler.get_scale() == 8.0
        before.teardown(None, None, "fit")
        its.setup(self.trainer("bf16-mixed"), None, "fit")
        its.load_state_dict(before.state_dict())
        assert its.state_dict() == {}
        its.teardown(None, None, "fit")

    def test_fabric(self, callback: Any) -> None:
        from lightning.fabric import Fabric

        from torchturbo.integrations.lightning import turbo_for

        with turbo_for(Fabric(accelerator="cpu", precision="bf16-mixed"), "fast") as active:
            assert not torch.is_autocast_enabled("cpu")
            assert [d.name for d in active.plan.refused if d.left_to] == ["autocast"]
        with turbo_for(Fabric(accelerator="cpu"), "fast", accumulate=2) as active:
            assert [d.name for d in active.plan.refused if d.left_to] == []
        with pytest.raises(TargetError, match=r"takes a lightning.Fabric, and got str"):
            turbo_for("fabric")


# -------------------------------------------------------------------------------------------------------- Hugging Face


class TestAccelerate:
    def test_what_the_accelerator_does_is_left_to_it(self) -> None:
        accelerate = pytest.importorskip("accelerate")
        from torchturbo.integrations.accelerate import turbo_for

        def left_by(**arguments: Any) -> dict[str, Any]:
            accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
            accelerator = accelerate.Accelerator(cpu=True, **arguments)
            with turbo_for(accelerator, "fast", accumulate=2) as active:
                return {d.name: d.refused for d in active.plan.refused if d.left_to}

        try:
            assert left_by() == {}
            assert left_by(gradient_accumulation_steps=4) == {
                "accumulate": "left to Accelerator(gradient_accumulation_steps=4)"
            }
            assert left_by(mixed_precision="bf16") == {"autocast": "left to Accelerator(mixed_precision='bf16')"}
        finally:
            accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(TargetError, match=r"takes an accelerate.Accelerator, and got str"):
            turbo_for("fast")


class TestTransformers:
    @pytest.fixture
    def callback(self) -> Any:
        pytest.importorskip("accelerate")
        pytest.importorskip("transformers")
        from torchturbo.integrations.transformers import TurboCallback

        yield TurboCallback
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)

    @staticmethod
    def made(folder: Any, *callbacks: Any) -> Any:
        from transformers import Trainer, TrainingArguments

        class Failing(Trainer):  # type: ignore[misc]
            def training_step(self, *args: Any, **kwargs: Any) -> Any:
                assert torch.is_anomaly_enabled()
                raise Failed("mine")

        arguments: Any = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
        data: Any = [{"x": torch.zeros(2)}] * 4
        model = nn.Sequential(nn.Linear(2, 2))
        return Failing(model, TrainingArguments(folder, **arguments), train_dataset=data, callbacks=list(callbacks))

    def test_an_error_closes_the_block(self, callback: Any, tmp_path: Any) -> None:
        its = callback("debug")
        trainer = self.made(tmp_path, its)
        for _ in range(2):
            with pytest.raises(Failed, match="mine"):
                trainer.train()
            assert its.active is None
            assert in_force() == ()

    def test_a_trainer_that_is_there_already_is_attached_to(self, callback: Any, tmp_path: Any) -> None:
        trainer, its = self.made(tmp_path), callback("debug")
        trainer.add_callback(its)
        with pytest.raises(TargetError, match=r"attach\(trainer\) instead of trainer.add_callback\(\)"):
            trainer.train()
        its.attach(trainer)
        assert trainer.callback_handler.callbacks.count(its) == 1
        with pytest.raises(Failed, match="mine"):
            trainer.train()
        with pytest.raises(TargetError, match=r"takes a transformers.Trainer, and got str"):
            its.attach("trainer")

    def test_evaluations_and_predictions_by_themselves_have_blocks_too(self, callback: Any, tmp_path: Any) -> None:
        from transformers import Trainer, TrainingArguments

        seen: list[tuple[bool, int]] = []

        class Model(nn.Module):
            def forward(self, x: Any, labels: Any) -> dict[str, Any]:
                seen.append((torch.is_autocast_enabled("cpu"), len(in_force())))
                return {"loss": x.sum(), "logits": x}

        arguments: Any = {"use_cpu": True, "report_to": [], "disable_tqdm": True}
        data: Any = [{"x": torch.zeros(2), "labels": 0}] * 4
        trainer = Trainer(Model(), TrainingArguments(tmp_path, **arguments), callbacks=[callback("fast")])
        trainer.evaluate({"one": data, "other": data})
        trainer.predict(data)
        assert (seen, in_force()) == ([(True, 1)] * 3, ())

    def test_micro_batches_are_the_trainers(self, callback: Any) -> None:
        with pytest.raises(TargetError, match=r"write TrainingArguments\(gradient_accumulation_steps=...\)"):
            callback("fast", accumulate=4)


# -------------------------------------------------------------------------------------------------------------- others


class TestIgnite:
    @pytest.fixture
    def ignite(self) -> Any:
        pytest.importorskip("ignite.engine")
        from torchturbo.integrations import ignite

        return ignite

    @pytest.mark.parametrize("swallowed", [False, True])
    def test_an_error_closes_the_block_and_goes_where_it_goes_without(self, ignite: Any, swallowed: bool) -> None:
        from ignite.engine import Engine, Events

        def fail(engine: Any, batch: Any) -> None:
            assert torch.is_anomaly_enabled()
            raise Failed("mine")

        engine = Engine(fail)
        engine.logger.disabled = True
        attached = ignite.attach(engine, "debug")
        if swallowed:
            engine.add_event_handler(Events.EXCEPTION_RAISED, lambda error: None)
            engine.run([1], max_epochs=1)
        else:
            with pytest.raises(Failed, match="mine"):
                engine.run([1], max_epochs=1)
        assert attached.active is None
        assert in_force() == ()

    def test_an_interrupted_run_has_a_block_for_each_part(self, ignite: Any) -> None:
        from ignite.engine import Engine

        seen = []

        def step(engine: Any, batch: Any) -> None:
            seen.append(torch.is_anomaly_enabled())
            if batch == 2:
                engine.interrupt()

        engine = Engine(step)
        attached = ignite.attach(engine, "debug")
        engine.run([1, 2, 3], max_epochs=1)
        assert (seen, in_force()) == ([True] * 2, ())
        engine.run([1, 2, 3], max_epochs=1)
        assert seen == [True] * 3
        attached.detach()
        attached.detach()
        engine.run([1], max_epochs=2)
        assert not any(seen[3:])

    def test_what_the_engine_does_is_left_to_it(self, ignite: Any) -> None:
        from ignite.engine import Engine, create_supervised_trainer

        def left_by(**arguments: Any) -> dict[str, str]:
            model = nn.Linear(2, 1)
            made = create_supervised_trainer(model, optimizer_of(model), nn.MSELoss(), **arguments)
            return dict(ignite._left_to(made))

        waits = "Ignite's create_supervised_trainer(gradient_accumulation_steps=2)"
        assert left_by() == {}
        assert left_by(gradient_accumulation_steps=2) == {"accumulate": waits}
        assert left_by(amp_mode="amp")["autocast"] == "Ignite's create_supervised_trainer(amp_mode='amp')"
        assert left_by(amp_mode="amp", gradient_accumulation_steps=2)["accumulate"] == waits
        assert (
            left_by(amp_mode="amp", scaler=torch.amp.GradScaler("cpu"))["accumulate"]
            == "the GradScaler of Ignite's step"
        )
        assert ignite._left_to(Engine(lambda engine, batch: None)) == ()
        with pytest.raises(TargetError, match=r"takes an ignite.engine.Engine, and got Linear"):
            ignite.attach(nn.Linear(1, 1))


class TestSkorch:
    @pytest.fixture
    def callback(self) -> Any:
        pytest.importorskip("skorch")
        from torchturbo.integrations.skorch import TurboCallback

        return TurboCallback

    @staticmethod
    def net_of(callback: Any, module: Any) -> Any:
        from skorch import NeuralNetClassifier

        criterion = nn.CrossEntropyLoss
        return NeuralNetClassifier(
            module, callbacks=[callback], max_epochs=1, train_split=None, verbose=0, criterion=criterion
        )

    def test_an_error_closes_the_block_and_the_net_is_as_it_was(self, callback: Any) -> None:
        class Failing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(2, 2)

            def forward(self, x: Any) -> Any:
                assert torch.is_anomaly_enabled()
                raise Failed("mine")

        its = callback("debug")
        classifier = self.net_of(its, Failing)
        for _ in range(2):
            with pytest.raises(Failed, match="mine"):
                classifier.fit(torch.zeros(4, 2).numpy(), torch.zeros(4, dtype=torch.long).numpy())
            assert "fit_loop" not in vars(classifier)
            assert in_force() == ()

    def test_scikit_learn_clones_it_with_its_options(self, callback: Any) -> None:
        from sklearn.base import clone

        mine = PROFILES["fast"] | Profile("mine", anomaly=True)
        again = clone(self.net_of(callback(mine, num_threads=1), nn.Linear)).callbacks[0]
        assert again.get_params() == {"profile": mine, "strict": False, "num_threads": 1}
        assert again.set_params(strict=True, num_threads=2).get_params()["num_threads"] == 2
        assert pickle.loads(pickle.dumps(callback())).get_params()["profile"] is UNNAMED
        with pytest.raises(TargetError, match="write a train_step of your own"):
            again.set_params(accumulate=2)

    def test_autocast_of_an_accelerated_net_is_its_accelerators(self) -> None:
        pytest.importorskip("skorch")
        from torchturbo.integrations.skorch import _left_to

        net = SimpleNamespace(accelerator=SimpleNamespace(mixed_precision="bf16"))
        assert dict(_left_to(net))["autocast"] == "the net's Accelerator(mixed_precision='bf16')"
        assert "autocast" not in dict(_left_to(SimpleNamespace()))
