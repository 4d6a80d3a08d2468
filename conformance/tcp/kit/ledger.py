"""What devices have said and were told, and what came of it at MQTT: nothing may be lost, and nothing may come twice but for
a reason."""

import collections
import dataclasses


@dataclasses.dataclass
class Record:
    """A number that a device has to get rid of."""

    attempts: int = 0
    answered: bool = False


class Ledger:
    """Of all devices of a fleet."""

    def __init__(self):
        self.records = collections.defaultdict(dict)
        self.came = collections.Counter()
        # What each command's id was for, what was heard by devices, and its outcomes.
        self.ordered, self.obeyed, self.outcomes = {}, collections.Counter(), collections.defaultdict(list)
        self.figures, self.failures = collections.Counter(), []

    def fail(self, text):
        self.failures.append(text)

    def has(self, device, count):
        """The device has so many records to say."""
        self.records[device] = {number: Record() for number in range(1, count + 1)}

    def due(self, device, most):
        """The oldest records that were not answered."""
        return [number for number, record in self.records[device].items() if not record.answered][:most]

    def tried(self, device, numbers):
        """They have gone out whole."""
        for number in numbers:
            self.records[device][number].attempts += 1
        self.figures["sent"] += len(numbers)

    def answered(self, device, numbers):
        """The gateway has said that it has them."""
        for number in numbers:
            self.records[device][number].answered = True

    def is_quiet(self):
        """Whether all is answered, has come, and was obeyed."""
        said = all(record.answered for records in self.records.values() for record in records.values())
        return said and not self.missing() and all(self.outcomes[order] for order in self.ordered)

    def missing(self):
        """What was answered and has not come."""
        return [(device, number) for device, records in self.records.items() for number, record in records.items()
                if record.answered and not self.came[device, number]]

    def audit(self, may_repeat=0):
        """What is wrong. `may_repeat` is how often MQTT itself may have said something again: at each kill."""
        wrong = list(self.failures)
        wrong += [f"{device} {number} is lost" for device, number in self.missing()]
        for (device, number), times in self.came.items():
            record = self.records.get(device, {}).get(number)
            if record is None or record.attempts == 0:
                wrong.append(f"{device} {number} was never sent, and came")
            elif times > record.attempts + may_repeat:
                wrong.append(f"{device} {number} came {times} times and was sent {record.attempts} times")
        for order, device in self.ordered.items():
            if not self.obeyed[order]:
                wrong.append(f"{device} was never told the command {order}")
            if not self.outcomes[order]:
                wrong.append(f"the command {order} of {device} has no outcome")
            for outcome in self.outcomes[order]:
                if not outcome.get("ok"):
                    wrong.append(f"the command {order} of {device}: {outcome}")
            if len(self.outcomes[order]) > self.obeyed[order] + may_repeat:
                wrong.append(f"the command {order} of {device} has {len(self.outcomes[order])} outcomes and was "
                             f"heard {self.obeyed[order]} times")
        return wrong

    def summary(self):
        """For whoever reads the log of a run."""
        numbers = [record for records in self.records.values() for record in records.values()]
        repeated = sum(times - 1 for times in self.came.values())
        return (f"{len(self.records)} devices, {len(numbers)} records, {self.figures['sent']} sent, "
                f"{sum(self.came.values())} came ({repeated} of them again), {len(self.ordered)} commands, "
                + ", ".join(f"{count} {what}" for what, count in sorted(self.figures.items()) if what != "sent"))
