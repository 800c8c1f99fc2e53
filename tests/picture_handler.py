"""Answers of a loopback server of pictures."""

from http.server import BaseHTTPRequestHandler


class PictureHandler(BaseHTTPRequestHandler):
    """Prints nothing. A subclass has `do_GET`."""

    def answer(self, picture):
        """Send these bytes."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(picture)))
        self.end_headers()
        self.wfile.write(picture)

    def log_message(self, *args):
        pass
