"""The engines that `benchmarks.stream_engines` runs, a program each; `task` says what all of them do."""
