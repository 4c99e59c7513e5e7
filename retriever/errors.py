"""
RetrieverError
├── RetrieverUnavailable   no answer now; try again
│   ├── RetrieverBusy      it has more questions than it can answer in time
│   └── DeadlineExceeded   no answer within the time that the caller gave
├── RequestRefused         the request can never succeed: a wrong value, which the message names
│   └── NotAllowed         the API key is missing or wrong
├── CannotListen           the address is in use, or does not belong to this machine
└── BadCertificate         a certificate or key file cannot be read, or holds something else

Clients get them too, as `nearline.RetrieverError` and so on: this module imports nothing.
"""


class RetrieverError(Exception):
    """Base of what this package raises. The message is one sentence."""

    generation: str | None = None
    """The generation that was asked. None if none was, and where nobody needs it."""

    def __init__(self, sentence: str, *, code: str | None = None, request_id: str | None = None) -> None:
        """`code` is the cause as a word for programs, and `request_id` finds the request in the retriever's log. Both
        are None if the retriever did not say them."""
        super().__init__(sentence)
        self.code = code
        self.request_id = request_id


class RetrieverUnavailable(RetrieverError):
    """No answer now. Try again."""

    def __init__(
        self,
        sentence: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """`retry_after_s`: after so long the same request will probably be answered. None if nobody knows."""
        super().__init__(sentence, code=code, request_id=request_id)
        self.retry_after_s = retry_after_s


class RetrieverBusy(RetrieverUnavailable):
    """It has more questions than it can answer in time, and did not begin with this one."""


class DeadlineExceeded(RetrieverUnavailable):
    """No answer within the time that the caller gave."""


class RequestRefused(RetrieverError):
    """Names the field and the mend."""


class NotAllowed(RequestRefused):
    """The API key is missing or wrong."""


class CannotListen(RetrieverError):
    """Names the address and why."""


class BadCertificate(RetrieverError):
    """Names the setting, the file and why."""
