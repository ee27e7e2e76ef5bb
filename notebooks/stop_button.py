"""Step 24: Jupyter's stop button ends a training after the batch at hand, with one sentence."""

import signal
import threading


class TrainingStopped(KeyboardInterrupt):
    """Raised when the stop button ends a training; Jupyter shows its one sentence only."""

    def _render_traceback_(self):
        return [str(self)]


class StopButton:
    """Notes that the stop button was pressed (in general: that SIGINT came) while `fit` runs.

    A second press stops at once. Signals reach the main thread only, so elsewhere nothing is noted.
    """

    is_pressed = False

    def watch(self):
        """Note presses from now on."""
        self.is_pressed = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) != self._on_press:
            self.handler_before = signal.signal(signal.SIGINT, self._on_press)

    def release(self):
        """Let a press do again what it did before."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.handler_before)

    def _on_press(self, number, frame):
        self.release()
        while frame and frame.f_code.co_name != "fit":
            frame = frame.f_back
        if frame:
            self.is_pressed = True
        elif callable(self.handler_before):  # training has ended with an error
            self.handler_before(number, frame)
