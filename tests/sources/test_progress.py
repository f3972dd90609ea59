"""How far a preparation is, where there is no terminal."""

from distillation.sources.progress import ImageProgress


def test_a_log_has_a_line_a_minute_with_the_time_left(caplog, capsys):
    caplog.set_level("INFO")
    now = iter([0.0, *(20.0 * step for step in range(1, 13))])
    with ImageProgress(12_000, clock=lambda: next(now)) as progress:
        for _ in range(12):
            progress.advance(1000)
    assert [record.getMessage() for record in caplog.records] == [
        "3,000 of 12,000 images (25 %), about 3 min left",
        "6,000 of 12,000 images (50 %), about 2 min left",
        "9,000 of 12,000 images (75 %), about 1 min left",
        "12,000 of 12,000 images (100 %), about 0 min left",
    ]
    assert capsys.readouterr().err == ""


def test_a_quick_preparation_says_nothing(caplog):
    caplog.set_level("INFO")
    with ImageProgress(10) as progress:
        progress.advance(10)
    assert caplog.records == []
