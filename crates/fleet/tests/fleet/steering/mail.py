"""A mail server as people run them (aiosmtpd), on loopback: PORT MODE CERTIFICATE KEY.

MODE is starttls, tls or none. Its one user is `selvedge` with the password `of a test`; but with `none` it asks nobody.
Each message that it takes is a line of JSON on its standard output.
"""

import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, mode, certificate, key = sys.argv[1:]
context = None
if mode != "none":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        taken = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": mode == "tls" or session.ssl is not None,
            "user": session.auth_data,
            "text": envelope.content.decode(),
        }
        print(json.dumps(taken), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"selvedge" and data.password == b"of a test"
    return AuthResult(success=good, handled=False, auth_data=data.login.decode())


options = {}
if mode != "none":
    # Encryption from the start counts as such only where it is not asked for again.
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": mode == "starttls"}
if mode == "starttls":
    options |= {"tls_context": context, "require_starttls": True}
controller = Controller(
    Handler(), hostname="127.0.0.1", port=int(port), ssl_context=context if mode == "tls" else None, **options
)
controller.start()
threading.Event().wait()
