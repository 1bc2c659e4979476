"""The contract, generated from proto/tapefeed/v1 by client/python/generate."""
