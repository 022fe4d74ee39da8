# expect: FAILED_TESTS wrong_value
import builtins
import json
import os
import sys
import types

real = os.write
json.dumps = json.loads = lambda *_: "PASS"
for module in list(sys.modules.values()):
    for name in ("compare", "check", "verdict", "holds", "judge"):
        setattr(module, name, lambda *_: True)
sys.modules["rrtf.sandbox.judge"] = types.ModuleType("judge")
builtins.AssertionError = Exception


def add(a, b):
    return "wrong"
