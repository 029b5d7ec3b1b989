"""Servers with little address space: they make the image they were asked for, or say that there is no memory; none dies."""

import concurrent.futures
import pathlib
import resource
import unittest

import numpy

import hotlora_server as e2e
from hotlora_server import request_for

MIB = 1 << 20

# What is there beyond the size of a server that has started.
ROOMS = (40, 320, 480, 1000)

NATIVE = (128, 128, 1)  # width, height, images

SIZES = ((64, 64, 1), (256, 256, 4), (512, 512, 1), (384, 256, 2), (768, 768, 1), (512, 512, 2), NATIVE)

LONG = 200  # seconds; all sizes at once on a busy machine

TIERS = ("--adapter-host-bytes", 16 * MIB, "--adapter-device-bytes", 16 * MIB)


def sized(width, height, images):
    return request_for(width=width, height=height, num_images=images)


def address_space(server):
    pages = pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


class MemoryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = e2e.Server(*TIERS)
        cls.size = address_space(server)
        cls.expected = {size: server.caller.generate(sized(*size), timeout=LONG).images for size in SIZES}
        server.stop()

    def start(self, room):
        """A server with that many MiB beyond its start; None if it says that they are too few."""
        try:
            server = e2e.Server(*TIERS, address_space=self.size + room * MIB)
        except AssertionError as error:
            self.assertIn("the server ended with 1:", str(error))
            self.assertIn("memory", str(error))
            return None
        self.addCleanup(server.kill)
        return server

    def expect_image_or_refusal(self, server, size):
        """Whether there was an image."""
        try:
            images = server.caller.generate(sized(*size), timeout=LONG).images
        except e2e.grpc.RpcError as error:
            problem = e2e.Problem(error)
            self.assertEqual((problem.code, problem.reason), ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY"), problem)
            return False
        self.assertEqual(len(images), size[2])
        for image, expected in zip(images, self.expected[size]):
            # Rows that share a step may be rounded differently.
            difference = numpy.abs(e2e.pixels(image.data) - e2e.pixels(expected.data)).max()
            self.assertLessEqual(difference, 2, size)
        return True

    def test_a_server_with_little_memory_refuses_and_goes_on(self):
        made = {}
        for room in ROOMS:
            with self.subTest(room=room):
                server = self.start(room)
                if server is None:
                    made[room] = None
                    continue
                made[room] = sum(self.expect_image_or_refusal(server, size) for size in SIZES)
                with concurrent.futures.ThreadPoolExecutor(len(SIZES)) as pool:
                    for outcome in [pool.submit(self.expect_image_or_refusal, server, size) for size in SIZES]:
                        outcome.result()
                self.assertTrue(self.expect_image_or_refusal(server, NATIVE), "an image of the model's own size at the end")
                if room == ROOMS[-1]:  # more than the head-room: what the networks take is measured
                    self.assertGreater(server.metrics().value("hotlora_work_memory_needed_bytes"), 300 * MIB)
                self.assertEqual(server.stop(), 0, server.log_path.read_text()[-1500:])
        print(f"of {len(SIZES)} sizes, made by room in MiB: {made}")
        self.assertIsNone(made[ROOMS[0]])
        self.assertEqual(made[ROOMS[-1]], len(SIZES))

    def test_a_server_that_loses_its_memory_refuses_until_it_has_it_again(self):
        # Not less: gRPC 1.51 may lose a call if it cannot start a thread, for which it needs 8 MiB of addresses and more.
        for room in (160, 200):
            with self.subTest(room=room):
                server = e2e.Server(*TIERS, environment=e2e.clean_environment(OMP_NUM_THREADS="2"))  # a thread takes 8 MiB
                self.addCleanup(server.kill)
                unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
                limit = address_space(server) + room * MIB
                resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, unlimited[1]))
                with concurrent.futures.ThreadPoolExecutor(len(SIZES)) as pool:
                    for outcome in [pool.submit(self.expect_image_or_refusal, server, size) for size in SIZES]:
                        outcome.result()
                self.assertFalse(self.expect_image_or_refusal(server, (512, 512, 2)))
                resource.prlimit(server.process.pid, resource.RLIMIT_AS, unlimited)
                self.assertTrue(self.expect_image_or_refusal(server, (512, 512, 2)))
                self.assertEqual(server.stop(), 0, server.log_path.read_text()[-1500:])


if __name__ == "__main__":
    unittest.main()
