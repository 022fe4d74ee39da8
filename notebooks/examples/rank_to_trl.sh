# Answers of a student and a teacher, judged by the tests, become preference pairs as TRL reads them.
rrtf rank problems.jsonl student=student.jsonl teacher=teacher.jsonl --teacher teacher --drop-ties --pairs --out pairs.jsonl
python - <<'END'
from datasets import load_dataset

pairs = load_dataset("json", data_files="pairs.jsonl", split="train")
print(len(pairs), "pairs of", pairs.column_names)  # DPOTrainer(..., train_dataset=pairs)
END
