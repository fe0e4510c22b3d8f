"""Hook where an answer's new tokens are sent to the detokenizer."""

from typing import Any

from pipo_core.sglang.asked import asked_of
from pipo_core.sglang.metrics import count_finished
from pipo_core.sglang.pair_ids import PairIds
from pipo_core.sglang.served import served
from pipo_core.sglang.text import as_tokens, text_of

COLUMN = "pipo"
"""Key of ``meta_info`` under which an answer's slots are reported."""


def send_tokens(original: Any, accumulator: Any, *, req: Any) -> None:
    """Send tokens and their counts, and with an answer's end how many slots and kept drafts it took."""
    model = served()
    if model is None:
        original(accumulator, req=req)
        return
    sent = len(accumulator.rids)
    with as_tokens(req, model.ids):
        original(accumulator, req=req)
    if len(accumulator.rids) == sent:
        return
    prompt = accumulator.prompt_tokens[-1]
    accumulator.cached_tokens[-1] = min(2 * accumulator.cached_tokens[-1], prompt)
    details = accumulator.cached_tokens_details[-1]
    if details:
        counted = {name: 2 * value if isinstance(value, int) else value for name, value in details.items()}
        accumulator.cached_tokens_details[-1] = counted
    report = [_report(req, model.ids)] if req.finished() else []
    # SGLang fills up the columns of requests that have nothing to say; ours has an entry for each.
    column = accumulator.customized_info.setdefault(COLUMN, [[] for _ in range(sent)])
    del column[sent:]
    column.append(report)


def _report(req: Any, ids: PairIds) -> dict[str, Any]:
    """Return what a finished request took, and count it."""
    slots = len(req.output_ids)
    kept = sum(ids.count(slot) - 1 for slot in req.output_ids)
    count_finished(slots, kept)
    asked = asked_of(req)
    report: dict[str, Any] = {"slots": slots, "kept": kept}
    if asked.record_slots:
        report["slot_token_counts"] = [ids.count(slot) for slot in req.output_ids]
    if asked.record_drafts:
        report["drafts"] = text_of(req, ids).drafts[:slots]
    return report
