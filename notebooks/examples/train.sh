# Ranked groups, and a model that is trained on them by the paper's objective; here the shipped one of
# 3.4 million parameters, for a minute's look. --model takes any causal model of the hub or a folder.
rrtf rank problems.jsonl student=student.jsonl teacher=teacher.jsonl --teacher teacher --out groups.jsonl
rrtf train groups.jsonl --model nano-student --objective rrtf --updates 10 --groups-per-batch 3 --out trained
# trained/ is a folder that transformers loads, with its losses in training.json.
