"""Runs test files against the built binary: `suite.py FOLDER [NAME…]`, each `FOLDER/*.py` a file of unittest cases.

A test that is skipped counts as failed: a client that is not installed is no reason to pass. Ends with one line
`N passed, N failed`.
"""

import importlib.util
import pathlib
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent


class Result(unittest.TextTestResult):
    """One line a test, with the time that it took."""

    def startTest(self, test):
        unittest.TestResult.startTest(self, test)
        self.began = time.monotonic()

    def _line(self, word, test):
        took = time.monotonic() - self.began if hasattr(self, "began") else 0
        self.stream.writeln(f"{word:4} {took:6.2f} s  {test}")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self._line("ok", test)

    def addFailure(self, test, err):
        unittest.TestResult.addFailure(self, test, err)
        self._line("FAIL", test)

    def addError(self, test, err):
        unittest.TestResult.addError(self, test, err)
        self._line("FAIL", test)

    def addSubTest(self, test, subtest, err):
        unittest.TestResult.addSubTest(self, test, subtest, err)
        if err is not None:
            self._line("FAIL", subtest)

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self._line("FAIL", f"{test} was skipped: {reason}")


def load(folder, names):
    """All tests of the files."""
    suite = unittest.TestSuite()
    files = sorted((HERE / folder).glob("*.py"))
    known = {file.stem for file in files}
    if unknown := set(names) - known:
        raise SystemExit(f"{folder}: no file {', '.join(sorted(unknown))}")
    for file in files:
        if names and file.stem not in names:
            continue
        spec = importlib.util.spec_from_file_location(f"{folder}.{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tests = unittest.defaultTestLoader.loadTestsFromModule(module)
        if tests.countTestCases() == 0:
            raise SystemExit(f"{file} holds no test")
        suite.addTest(tests)
    return suite


def main():
    """The command."""
    folder, names = sys.argv[1], sys.argv[2:]
    sys.path.insert(0, str(HERE))
    runner = unittest.TextTestRunner(stream=sys.stdout, resultclass=Result)
    result = runner.run(load(folder, names))
    # A test counts once, however many of its parts failed; a class that cannot be set up is one more failure.
    tests = {getattr(test, "test_case", test) for test, _ in result.failures + result.errors + result.skipped}
    failed = len(tests)
    passed = result.testsRun - sum(1 for test in tests if hasattr(test, "_testMethodName"))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
