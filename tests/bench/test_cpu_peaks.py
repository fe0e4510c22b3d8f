"""What is measured of a CPU has the order of a CPU's."""

from pipo_core.bench.cpu_peaks import measure_cpu


def test_a_cpu_reads_gigabytes_and_multiplies_more_often_than_it_reads() -> None:
    found = measure_cpu()
    assert 1e8 < found.bandwidth < 1e13
    assert 1e8 < found.flops < 1e15
    assert found.balance > 0.25  # operations a byte: one for each number that is read
