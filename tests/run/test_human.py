"""Numbers written for people."""

import pytest

from grpo_jax.run.human import human_bytes, human_count, human_duration


@pytest.mark.parametrize(
  ("count", "text"),
  [
    (0, "0"),
    (512, "512"),
    (999, "999"),
    (999.6, "1.00k"),
    (1280, "1.28k"),
    (31_400, "31.4k"),
    (999_499, "999k"),
    (999_500, "1.00M"),
    (1_720_574_976, "1.72G"),
    (-1500, "-1.50k"),
    (0.25, "0.25"),
    (31.44, "31.4"),
    (7.3e21, "7300E"),
  ],
)
def test_human_count(count, text):
  assert human_count(count) == text


@pytest.mark.parametrize(
  ("count", "text"),
  [
    (0, "0 bytes"),
    (999, "999 bytes"),
    (1000, "1.00 kB"),
    (3_200_000, "3.20 MB"),
    (14.8e9, "14.8 GB"),
  ],
)
def test_human_bytes(count, text):
  assert human_bytes(count) == text


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0, "0.0 s"),
    (0.449, "0.4 s"),
    (9.94, "9.9 s"),
    (9.96, "10 s"),
    (59.4, "59 s"),
    (59.6, "1 min 00 s"),
    (185, "3 min 05 s"),
    (3599.6, "1 h 00 min"),
    (7_620, "2 h 07 min"),
    (86_399.9, "1 d 00 h"),
    (93_600, "1 d 02 h"),
  ],
)
def test_human_duration(seconds, text):
  assert human_duration(seconds) == text
