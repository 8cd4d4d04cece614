"""Tasks of lm-eval in files: sums to choose from, with and without the way there, to answer, and to foresee."""

from __future__ import annotations

import json
import random
from pathlib import Path

TASKS = {
    "sums_choice": """\
output_type: multiple_choice
num_fewshot: 2
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "sums_worked": """\
output_type: multiple_choice
num_fewshot: 0
doc_to_text: "{{worked}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "sums_generate": """\
output_type: generate_until
num_fewshot: 0
doc_to_text: "Question: State the final answer to the following arithmetic problem: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:"], max_gen_toks: 32, do_sample: false}
filter_list:
  - name: marked
    filter: [{function: regex, regex_pattern: "#### (\\\\d+)"}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "sums_text": """\
output_type: loglikelihood_rolling
num_fewshot: 0
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
""",
}


def write_tasks(folder: Path) -> None:
    """NAME.yaml for each of `TASKS`, and their data."""
    rng = random.Random(0)
    rows = []
    for _ in range(40):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        choices = [a + b, a + b + 1, a + b + 2, a + b - 1]
        rng.shuffle(choices)
        row = {"question": f"{a} + {b} =", "choices": list(map(str, choices)), "label": choices.index(a + b)}
        asked = f"Question: State the final answer to the following arithmetic problem: {a} + {b} + 0 =\nAnswer:"
        row["worked"] = f"{asked} {a}+{b}={a + b}\n{a + b}+0={a + b}\n####"  # the embedded model finishes it
        rows.append({**row, "answer": str(a + b), "text": f"{a} + {b} = {a + b}. " * 10})
    data = folder / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{source}{text}metadata: {{version: 1.0}}\n")
