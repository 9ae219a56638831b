"""An upstream's answer as it goes to the client: what the upstream sent, less what stops here, in our own terms."""

from proxy.accesslog import Exchange
from proxy.binding import Binding
from proxy.credentials.credential import Rendered
from proxy.guard import Admission, cors_lines
from proxy.headers import answer_lines
from proxy.http1.answer import AnswerHead
from proxy.listener.answer import block

#: What the lines depend on besides the head (the credential that was sent, our origin, the key's segment), the
#: lines, and how many fields were dropped as echoes.
Memo = tuple[Rendered | None, bytes, bytes, bytes, int]


def lines(
    head: AnswerHead, admission: Admission, binding: Binding, rendered: Rendered | None, exchange: Exchange
) -> bytes:
    """The field lines that the client gets, less framing; `exchange` counts the echoes that were dropped."""
    kept = kept_lines(head, admission, binding, rendered, exchange)
    origin = admission.visitor.origin
    if origin is not None and binding.rewriter.cors:
        return kept + block(cors_lines(origin, exposed=kept.split(b"\r\n")))
    return kept


def kept_lines(
    head: AnswerHead, admission: Admission, binding: Binding, rendered: Rendered | None, exchange: Exchange
) -> bytes:
    """What of them is the upstream's: all that an interim answer has."""
    own_origin, key_prefix = admission.visitor.own_origin, admission.key_prefix
    # Servers send the same head again and again, and what becomes of it is the same each time.
    memo: Memo | None = head.memo
    if memo is None or memo[0] is not rendered or memo[1] != own_origin or memo[2] != key_prefix:
        rewriter = binding.rewriter
        kept, echoed = answer_lines(
            head.fields,
            head.options,
            echoes=() if rendered is None else rendered.echoes,
            grants=not rewriter.cors,
            rewritten=rewriter.names,
            rewrite=lambda name, value: rewriter.value(name, value, own_origin=own_origin, key_prefix=key_prefix),
        )
        memo = head.memo = (rendered, own_origin, key_prefix, block(kept), echoed)
    exchange.echoes += memo[4]
    return memo[3]
