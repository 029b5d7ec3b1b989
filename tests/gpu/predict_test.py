#!/usr/bin/env python3
"""The arithmetic of predict.py, against published counts of SDXL's work."""

import unittest

import predict


class PredictTest(unittest.TestCase):
    def test_unet(self):
        work = predict.unet(1, 1024)
        # diffusers' benchmark counts 5979.1 GFLOP without attention's products.
        self.assertAlmostEqual(2 * (work.gemm + work.convolution) / 1e12, 5.979, delta=0.01)
        self.assertAlmostEqual(work.flop() / 1e12, 6.76, delta=0.01)
        self.assertEqual(predict.unet(8, 1024).flop(), 8 * work.flop())
        self.assertAlmostEqual(predict.unet(1, 512).flop() / 1e12, 1.59, delta=0.01)

    def test_vae_and_text(self):
        self.assertAlmostEqual(predict.vae(1024).flop() / 1e12, 10.47, delta=0.03)
        self.assertAlmostEqual(predict.text(1).flop() / 1e12, 0.11, delta=0.005)

    def test_adapter(self):
        self.assertEqual(len(predict.adapted_layers()), 722)
        self.assertAlmostEqual(predict.adapter_bytes(64) / 1e6, 340.459, delta=0.001)

    def test_table(self):
        rows = predict.predictions()
        self.assertEqual(len({name for name, *_ in rows}), len(rows))
        self.assertTrue(all(value > 0 for _, _, value, _ in rows))
        with_measured = predict.table({rows[0][0]: 1234.5})
        self.assertIn("| 1.23e+03 |", with_measured.splitlines()[2])
        self.assertEqual(len(with_measured.splitlines()), len(rows) + 2)


if __name__ == "__main__":
    unittest.main()
