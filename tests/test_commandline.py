"""takehome/commandline.py and takehome/errors.py: bounds of options, signals, and errors of others in one line."""

import os
import signal

import pytest

from takehome.commandline import Parser, Stopped, StopSignals, number, stopped_by_signals
from takehome.errors import InputError, explain_limits, one_line


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "-1", "1.5", "x", ""])
def test_a_number_out_of_range_is_refused_by_name(word):
    parser = Parser(prog="program")
    parser.add_argument("--share", type=number(float, 0, 1))
    parser.add_argument("--steps", type=number(int, 1))
    for option in ("--share", "--steps"):
        with pytest.raises(InputError, match=rf"argument {option}: .*--help"):
            parser.parse_args([f"{option}={word}"])


def test_bounds_belong_to_the_range_unless_it_is_above():
    assert number(float, 0, 1)("0") == 0 and number(float, 0, 1)("1") == 1 and number(int)("-5") == -5
    with pytest.raises(Exception, match="above 0"):
        number(float, 0, above=True)("0")


def test_no_option_is_shortened():
    parser = Parser(prog="program")
    parser.add_argument("--output-dir")
    with pytest.raises(InputError, match="unrecognized"):
        parser.parse_args(["--output=x"])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_asks_and_the_second_ends(name):
    if not (number := getattr(signal, name, None)) or os.name == "nt":
        pytest.skip("no such signal here")
    said, outer = [], []
    before = signal.signal(number, lambda *_: outer.append("ended"))
    try:
        with StopSignals(said.append) as stop:
            signal.raise_signal(number)
            assert stop.asked == number and len(said) == 1 and name in said[0] and not outer
            signal.raise_signal(number)
        assert outer == ["ended"]
        signal.raise_signal(number)  # the handlers of before are back
        assert outer == ["ended"] * 2
    finally:
        signal.signal(number, before)


def test_under_a_launcher_further_signals_end_nothing(monkeypatch):
    """A terminal's Ctrl-C reaches each process, and then the launcher sends a signal of its own."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    said, outer = [], []
    before = {number: signal.signal(number, outer.append) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with StopSignals(said.append) as stop:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
                signal.raise_signal(number)
        assert (stop.asked, len(said), outer) == (signal.SIGINT, 1, [])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_foreign_text_is_one_printable_line():
    assert one_line("a\nb\t\x1b[31mred\x07") == "a b \\x1b[31mred\\x07"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line("x" * 1000)) == 300


def test_limits_of_the_machine(tmp_path):
    full = explain_limits(OSError(28, "No space left on device"), tmp_path / "a" / "b")
    assert "make room" in full and str(tmp_path) in full
    assert "per-device-train-batch-size" in explain_limits(MemoryError(), tmp_path)
    assert explain_limits(ValueError("x"), tmp_path) is None


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_before_and_after_training_a_signal_is_an_exception(name):
    if not (number := getattr(signal, name, None)) or os.name == "nt":
        pytest.skip("no such signal here")
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=name) as caught, stopped_by_signals():
        signal.raise_signal(number)
    assert caught.value.status == 128 + number and signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored():
    if os.name == "nt":
        pytest.skip("no such signal here")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(), StopSignals(print) as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
