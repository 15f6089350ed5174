# SPDX-License-Identifier: Apache-2.0
"""AWS Nitro Enclaves."""
