"""Which GPUs torch will count, and in which order: CUDA_VISIBLE_DEVICES and MIG, without CUDA."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hardware.driver import GIB, Card, Driver, slice_of
from torchturbo.hardware import cuda

A, B, C = "GPU-aaaa0000-1111", "GPU-aabb0000-2222", "GPU-cccc0000-3333"


def three() -> list[Card | None]:
    """Three GPUs of one kind, told apart by their memory."""
    return [Card(uuid=uuid, memory=size * GIB) for size, uuid in enumerate((A, B, C))]


def visible(monkeypatch: pytest.MonkeyPatch, wanted: str) -> list[int]:
    """NVML's numbers of the three GPUs that torch will count."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    gpus = cuda.ask().gpus
    assert [gpu.index for gpu in gpus] == list(range(len(gpus)))
    return [(gpu.memory or 0) // GIB for gpu in gpus]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ("0,1,2", [0, 1, 2]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("1gpu,+2ampere", [1, 2]),
        ("0,-1,2", [0]),
        ("0,,2", [0]),
        ("0,3,2", [0]),
        ("0,7,2", [0]),
        ("0,nothing,2", [0]),
        ("1,1", []),
        ("", []),
        ("-1", []),
        ("no", []),
        (A, [0]),
        (f"{C},{A}", [2, 0]),
        ("GPU-c,GPU-aab", [2, 1]),
        ("GPU-aa", []),
        (f"{C},GPU-aa,{A}", [2]),
        (f"{C},GPU-zzz,{A}", [2]),
        (f"{C},0,{A}", [2]),
        (f"{C},{C}", []),
        (f"{C},GPU-cc", []),
        ("MIG-unknown", []),
    ],
)
def test_visible_devices_are_counted_as_torch_counts(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, wanted: str, numbers: list[int]
) -> None:
    driver.cards = three()
    assert visible(monkeypatch, wanted) == numbers
    assert [(reading.index) for reading in cuda.readings()] == list(range(len(numbers)))


def test_every_gpu_is_visible_unless_something_is_asked(driver: Driver) -> None:
    driver.cards = three()
    found = cuda.ask()
    assert [gpu.memory for gpu in found.gpus] == [0, GIB, 2 * GIB]
    assert found.reasons == ()
    assert found.final


def test_readings_follow_the_order_of_torch(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.cards = [Card(uuid=A, used=1), Card(uuid=B, used=2), Card(uuid=C, used=3)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert [(reading.index, reading.memory_used) for reading in cuda.readings()] == [(0, 3), (1, 1)]


# A machine that is busy with other work is no fault of the inputs.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def words(*signs: str) -> st.SearchStrategy[str]:
    return st.lists(st.text("".join(signs), max_size=4), max_size=4).map(",".join)


@patient
@given(words("0123456789", "+- gP"))
def test_numbers_are_read_as_torch_reads_them(wanted: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        patch.setattr(torch.version, "hip", None)
        try:
            expected = torch.cuda._parse_visible_devices()
        except ValueError:  # torch stumbles over a sign without a number, which to CUDA is no number
            return
    assert cuda._ordinals(wanted) == expected


@patient
@given(
    st.sampled_from(["GPU-", "MIG-"]),
    st.lists(st.sampled_from(["GPU-a", "GPU-b", "MIG-a", "MIG-b", "0", ""])),
)
def test_uuids_are_read_as_torch_reads_them(prefix: str, rest: list[str]) -> None:
    wanted = ",".join([f"{prefix}a", *rest])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        patch.setattr(torch.version, "hip", None)
        expected = torch.cuda._parse_visible_devices()
    assert cuda._uuids(wanted, prefix) == expected


def test_hidden_gpus_are_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = cuda.ask()
    assert found.reasons == ("CUDA_VISIBLE_DEVICES='' hides what is here: NVIDIA A100-SXM4-80GB.",)
    assert not found.final


def test_a_driver_without_gpus_is_a_sentence(driver: Driver) -> None:
    driver.cards = []
    assert cuda.ask().reasons == ("NVIDIA's driver answers, but has no GPU to offer.",)
    driver.refused.add("nvmlDeviceGetCount")
    assert cuda.ask().reasons == ("NVIDIA's driver answers, but has no GPU to offer.",)


def test_a_gpu_that_cannot_be_opened_is_left_out(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.cards = [Card(uuid=A, memory=0), None, Card(uuid=C, memory=2 * GIB)]
    assert visible(monkeypatch, "2,1,0") == [2, 0]
    assert cuda.ask().reasons == ("NVML counts GPU 1, but cannot open it.",)
    driver.cards = [None]
    assert cuda.ask().gpus == ()
    assert len(cuda.ask().reasons) == 2


class TestOrder:
    """CUDA counts the fastest GPU first, NVML goes by the bus; which is faster it cannot tell."""

    @pytest.fixture(autouse=True)
    def different(self, driver: Driver) -> None:
        driver.cards = [Card("Tesla T4", A, (7, 5)), Card("NVIDIA A100-SXM4-80GB", B)]

    @pytest.mark.parametrize("wanted", [None, "0", "1,0"])
    def test_gpus_that_differ_may_be_counted_otherwise(
        self, monkeypatch: pytest.MonkeyPatch, wanted: str | None
    ) -> None:
        if wanted is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        found = cuda.ask()
        assert len(found.gpus) == (2 if wanted is None else len(wanted.split(",")))
        assert len(found.reasons) == 1
        assert "fastest first" in found.reasons[0]
        assert not found.final

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("CUDA_VISIBLE_DEVICES", f"{B},{A}"),
        ],
    )
    def test_the_order_is_certain_where_it_was_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        found = cuda.ask()
        assert len(found.gpus) == 2
        assert found.reasons == ()
        assert found.final


class TestSlices:
    """MIG: a GPU cut into slices, of which a process gets one, and nothing beside it."""

    @pytest.fixture(autouse=True)
    def sliced(self, driver: Driver) -> None:
        first, second = slice_of("MIG 1g.5gb", "MIG-1"), slice_of("MIG 2g.10gb", "MIG-2")
        driver.cards = [Card("whole", A), Card("cut", B, slices=[None, first, second])]

    @pytest.mark.parametrize(
        ("wanted", "name", "others"),
        [
            ("MIG-2", "MIG 2g.10gb", None),
            ("MIG-2,MIG-1", "MIG 2g.10gb", "MIG 1g.5gb"),
            ("MIG-1,MIG-unknown,MIG-2", "MIG 1g.5gb", None),
            (B, "MIG 1g.5gb", "MIG 2g.10gb"),
            (f"{A},{B}", "MIG 1g.5gb", "MIG 2g.10gb, whole"),
        ],
    )
    def test_one_slice_is_all_there_is(
        self, monkeypatch: pytest.MonkeyPatch, wanted: str, name: str, others: str | None
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        found = cuda.ask()
        assert [(gpu.index, gpu.name) for gpu in found.gpus] == [(0, name)]
        assert [reading.memory_used for reading in cuda.readings()] == [1 * GIB]
        said = () if others is None else (f"CUDA uses one slice (MIG) and then nothing else, so not {others}.",)
        assert found.reasons == said
        assert found.final is (others is None)

    def test_a_slice_chosen_by_number_may_be_another(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.cards = [Card("whole", A), Card("cut", B, slices=[slice_of("MIG 1g.5gb", "MIG-1")])]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        found = cuda.ask()
        assert [gpu.name for gpu in found.gpus] == ["MIG 1g.5gb"]
        assert "fastest first" in found.reasons[0]
        assert not found.final

    def test_an_unknown_slice_hides_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-unknown,MIG-1")
        assert cuda.ask().gpus == ()

    def test_a_gpu_that_is_not_cut_stays_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", A)
        assert [gpu.name for gpu in cuda.ask().gpus] == ["whole"]

    def test_a_gpu_without_a_slice_is_no_use(self, driver: Driver) -> None:
        driver.cards = [Card("cut", A, slices=[None, None]), Card("cut", B, slices=[])]
        found = cuda.ask()
        assert found.gpus == ()
        assert found.reasons == ("In MIG mode without a slice, so that CUDA cannot use it: cut, cut.",)
        assert not found.final

    def test_a_driver_that_does_not_know_slices_is_believed(self, driver: Driver) -> None:
        driver.cards = three()
        driver.refused.add("nvmlDeviceGetMigMode")
        assert len(cuda.ask().gpus) == 3
