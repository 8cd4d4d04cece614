"""Two tasks of lm-eval in files: sums to choose from, and the same sums to answer."""

from __future__ import annotations

import json
import random
from pathlib import Path

TASKS = {
    "sums_choice": """\
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "sums_generate": """\
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 24, do_sample: false}
filter_list:
  - name: last
    filter: [{function: regex, regex_pattern: "(\\\\d+)", group_select: -1}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "sums_text": """\
output_type: loglikelihood_rolling
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
        rows.append({**row, "answer": str(a + b), "text": f"{a} + {b} = {a + b}. " * 10})
    data = folder / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        question = 'doc_to_text: ""\n' if name == "sums_text" else 'doc_to_text: "{{question}}"\n'
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{source}{question}{text}metadata: {{version: 1.0}}\n")
