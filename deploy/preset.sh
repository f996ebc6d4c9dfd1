#!/usr/bin/env bash
# Prints the preset that this machine can build: cuda where nvcc is found, else cpu.
command -v nvcc >/dev/null && echo cuda || echo cpu
