"""
RetrieverError
├── RetrieverUnavailable   infrastructure: no answer now; try again
├── RequestRefused         the request can never succeed: a wrong value, which the message names
│   └── NotAllowed         the API key is missing or wrong
├── CannotListen           the address is in use, or does not belong to this machine
└── BadCertificate         a certificate or key file cannot be read, or holds something else
"""


class RetrieverError(Exception):
    """Base of what this package raises. The message is one sentence."""


class RetrieverUnavailable(RetrieverError):
    """No answer now. Try again."""


class RequestRefused(RetrieverError):
    """Names the field and the mend."""


class NotAllowed(RequestRefused):
    """The API key is missing or wrong."""


class CannotListen(RetrieverError):
    """Names the address and why."""


class BadCertificate(RetrieverError):
    """Names the setting, the file and why."""
