"""The plain WSGI app under gevent's server, in a process that gevent patches before or after our import: ``PORT``."""

import os
import sys

from gevent import monkey

if os.environ["PATCH"] == "before":
    monkey.patch_all()

from gevent.pywsgi import WSGIServer

from tests.apps.wsgi_app import app

if os.environ["PATCH"] == "after":
    monkey.patch_all()

WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()
