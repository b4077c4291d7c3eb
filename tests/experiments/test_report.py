"""The page tells what the runs say, all of it, and is not at the mercy of what a model wrote."""

import html.parser
import json
import shutil

import pytest

from experiments import report
from experiments.outcomes import COSTS
from grpo_jax.errors import UserError

STUDY = """
from experiments.study import Study, Variant
STUDY = Study(
  question="Is <b> better?", rule="If so.", config="c.py", seeds=(0, 1, 2), target=0.6,
  families={"first": {"grpo": Variant("grpo")},
            "second": {"b": Variant("aper", about="a & b"), "absent": Variant("fifo")}},
)
"""
SCRIPT = "<script>alert(1)</script>"


def write_run(folder, *, method, seed, right, per_step=100, before=0, finished=True):
  (folder / "rollouts").mkdir(parents=True)
  (folder / "rollouts/step_000002.txt").write_text(f"group 0\n  | {SCRIPT}\n")
  (folder / "config.json").write_text(json.dumps({"method": method, "seed": seed, "a": {"b": 1}}))
  rows = [
    {"step": step, "eval/accuracy": share, "eval/pass_at_4": share, "eval/length_mean": 9.0}
    | dict.fromkeys(COSTS.values(), before + per_step * step)
    for step, share in enumerate(right)
  ]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  if finished:
    (folder / "finished.json").write_text("{}")


@pytest.fixture
def runs(tmp_path):
  """GRPO reaches 0.6 with one seed of three; b is 10 points better at every seed."""
  for seed, end in enumerate((0.5, 0.58, 0.63)):
    runs = tmp_path / "runs"
    write_run(runs / f"grpo/seed_{seed}", method="grpo", seed=seed, right=(0.1, 0.3, end))
    write_run(
      runs / f"b/seed_{seed}",
      method="aper",
      seed=seed,
      right=(0.1, 0.3, end + 0.1 + 0.001 * seed),
    )
  write_run(runs / "absent/seed_0", method="fifo", seed=0, right=(0.1, 0.9))
  write_run(runs / "absent/seed_1", method="fifo", seed=1, right=(0.1, 0.9), finished=False)
  (tmp_path / "small.py").write_text(STUDY)
  return tmp_path


class Tags(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.names, self.links = [], []

  def handle_starttag(self, tag, attrs):
    self.names.append(tag)
    self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v[0] != "#"]


def test_the_other_held_out_set_has_a_table_where_all_runs_have_one(runs):
  def written() -> str:
    report.main([str(runs / "small.py"), f"--runs={runs / 'runs'}", f"--out={runs / 'out'}"])
    return (runs / "out/small.md").read_text()

  assert "other held-out" not in written()
  for file in (runs / "runs").glob("*/*/metrics.jsonl"):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    more = 0.2 if file.parent.parent.name == "b" else 0.4
    file.write_text("".join(json.dumps(row | {"eval_more/accuracy": more}) + "\n" for row in rows))
  table = written().partition("## The other held-out problems after 200 rollouts")[2]
  row = next(line for line in table.splitlines() if line.startswith("| b |"))
  assert row.split(" | ")[1:3] == ["20.0 (20.0 to 20.0)", "-20.0 (-20.0 to -20.0)"]
  assert row.split(" | ")[4].startswith("-5.0 (")  # of the mean: ten points more, and twenty less


def test_a_study_becomes_a_page_a_table_and_a_picture(runs):
  report.main([str(runs / "small.py"), f"--runs={runs / 'runs'}", f"--out={runs / 'out'}"])
  page, table = (runs / "out/small.html").read_text(), (runs / "out/small.md").read_text()
  tags = Tags()
  tags.feed(page)
  assert "script" not in tags.names
  assert not tags.links  # nothing is fetched from elsewhere
  assert "&lt;script&gt;alert(1)" in page
  assert "Is &lt;b&gt; better?" in page
  assert "a &amp; b" in page
  assert page.count("<svg") == 2  # differences, and curves of the one family with variants
  assert (runs / "out/small.png").read_bytes().startswith(b"\x89PNG")
  kept = json.loads((runs / "out/small.json").read_text())
  assert kept["b"]["1"]["accuracy"] == pytest.approx([0.1, 0.3, 0.681])
  assert kept["grpo"]["2"]["rollouts"] == [0, 100, 200]
  for text in (page, table):
    assert "Above grpo: b (surely). Below grpo: none. No difference shown: the other 0." in text
    assert "absent (1 of 3 seeds)" in text
    assert "alpha 1, beta 3, gamma 5" in text
  (row,) = [line for line in table.splitlines() if line.startswith("| b | 6")]
  assert "+10.1 (+9.9 to +10.3) | <0.001 (<0.001)" in row
  assert row.endswith("| 3 |")


def test_never_is_counted_not_left_out(runs):
  found = report.of_study(str(runs / "small.py"), runs / "runs")
  _, families = report.cost_table(found)
  ((name, share, ended, rollouts, *_, reached),) = [row[:8] for row in families["first"]]
  assert (name, share, ended) == ("grpo", "100%", "3 of 3")
  assert (rollouts, reached) == ("never", "1 of 3")
  assert families["second"][0][7] == "3 of 3"


def test_a_variant_that_spends_more_is_read_at_the_same_budget(runs):
  for seed in (2, 1, 0):
    folder = runs / f"runs/absent/seed_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    write_run(folder, method="fifo", seed=seed, right=(0.1, 0.3, 0.9), before=100)
  found = report.of_study(str(runs / "small.py"), runs / "runs")
  assert found.budget == 200
  assert found.values("absent", found.at_budget)[0] == pytest.approx(0.3)


def test_any_folder_of_runs_is_reported(runs):
  report.main([str(runs / "runs"), "--target=0.6"])
  table = (runs / "runs/runs.md").read_text()
  assert "| aper | 67.1 (60.0 to 73.2) |" in table


def test_what_is_missing_is_said(runs):
  with pytest.raises(UserError, match="no run of 'dapo'; there are: fifo, aper, grpo"):
    report.main([str(runs / "runs"), "--baseline=dapo"])
  with pytest.raises(UserError, match="grpo has not finished at all seeds"):
    report.main([str(runs / "small.py"), f"--runs={runs / 'elsewhere'}"])
