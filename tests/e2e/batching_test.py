"""Requests that share steps: each image is what it would be alone, whatever happens beside it."""

import io
import random
import unittest

import grpc
from PIL import Image, ImageChops

import hotlora_server as e2e
from hotlora_server import request_for, server_pb2

SETS = ((), ("outline",), ("night",), (("outline", 0.5), "night"))


def request(number, steps=8):
    return request_for(*SETS[number % len(SETS)], seed=number, steps=steps)


def difference(one, other):
    """The largest of any pixel and colour, 0 to 255."""
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in (one, other)]
    return max(high for _, high in ImageChops.difference(*pictures).getextrema())


def together(caller, requests):
    calls = [caller.images.GenerateImages.future(each, timeout=e2e.PATIENCE) for each in requests]
    return [call.result().images[0].data for call in calls]


class BatchingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = e2e.Server("--max-batch", 4, "--dtype", "float32", adapters=e2e.DEMO_ADAPTERS)
        cls.caller = cls.server.caller
        cls.alone = [cls.caller.image(request(number)) for number in range(8)]

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def rows_per_step(self):
        scrape = self.server.metrics()
        return scrape.sum("hotlora_batch_size_sum"), scrape.sum("hotlora_batch_size_count")

    def check_together(self, numbers):
        rows, steps = self.rows_per_step()
        images = together(self.caller, [request(number) for number in numbers])
        rows_after, steps_after = self.rows_per_step()
        self.assertEqual(rows_after - rows, 8 * len(numbers))
        self.assertLess(steps_after - steps, 8 * len(numbers), "some steps had more than one row")
        for number, image in zip(numbers, images):
            self.assertLessEqual(difference(image, self.alone[number]), 2, f"request {number}")

    def test_the_negative_control(self):
        self.assertGreater(difference(self.alone[0], self.alone[1]), 2)
        self.assertEqual(difference(self.alone[0], self.alone[0]), 0)

    def test_one_set(self):
        self.check_together([0, 4])
        self.check_together([1, 5])

    def test_mixed_sets(self):
        self.check_together(list(range(8)))

    def test_cancels_and_failures_beside_it(self):
        storm = [self.caller.stream(request(number, steps=200)) for number in range(3)]
        wrong = self.caller.images.GenerateImages.future(request_for("nowhere"), timeout=e2e.PATIENCE)
        wanted = self.caller.images.GenerateImages.future(request(7), timeout=e2e.PATIENCE)
        for stream in storm:
            e2e.read_until(stream, "progress")
            stream.cancel()
        self.assertLessEqual(difference(wanted.result().images[0].data, self.alone[7]), 2)
        self.assertEqual(wrong.exception().code(), grpc.StatusCode.NOT_FOUND)
        self.server.wait_for_metric(0, "hotlora_adapter_refs")
        self.assertEqual(self.caller.image(request(0)), self.alone[0])


class OneRowTest(unittest.TestCase):
    """T-05, T-06: with a row a step, images are those of their single runs to the bit, after anything."""

    def test_isolation_and_restore(self):
        server = e2e.Server("--max-batch", 1, adapters=e2e.DEMO_ADAPTERS)
        caller = server.caller
        numbers = [0, 1, 2, 1, 0, 3]
        alone = {number: caller.image(request(number, steps=2)) for number in set(numbers)}
        images = together(caller, [request(number, steps=2) for number in numbers])
        self.assertEqual(images, [alone[number] for number in numbers])
        chance = random.Random(7)

        def one_of_many(index):
            number = chance.randrange(4)
            if index % 5 == 0:
                return e2e.problem_of(lambda: caller.generate(request_for("nowhere")))
            stream = caller.stream(request(number, steps=6))
            if index % 3 == 0:
                e2e.read_until(stream, "accepted" if index % 2 else "progress")
                stream.cancel()
            else:
                list(stream)

        for index in range(100):
            one_of_many(index)
        integrity = caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)
        self.assertEqual((integrity.mismatches, integrity.intact), (0, True))
        for number, image in alone.items():
            self.assertEqual(caller.image(request(number, steps=2)), image)
        self.assertEqual(server.metrics().value("hotlora_base_restore_mismatch_total"), 0)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
