package main

import (
	"context"
	"errors"
	"strings"
	"time"
)

// deploysAgain is how often an application is deployed that was there before.
const deploysAgain = 7

// deploys measures the time from the start of decant deploy to the first answer
// of the application.
func deploys(ctx context.Context, _ int) ([]figure, error) {
	s, err := newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if _, err := s.Push(ctx, "bench/echo"); err != nil {
		return nil, err
	}
	first, err := s.deployAndCall(ctx)
	if err != nil {
		return nil, err
	}
	var again []time.Duration
	for range deploysAgain {
		if _, err := s.Decant(ctx, nil, "app", "rm", "bench"); err != nil {
			return nil, err
		}
		took, err := s.deployAndCall(ctx)
		if err != nil {
			return nil, err
		}
		again = append(again, took)
	}
	return []figure{
		{what: "deploy to first answer, first", ours: rounded(first)},
		{what: "deploy to first answer, again, p50", ours: rounded(quantile(again, .5))},
	}, nil
}

func (s *site) deployAndCall(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if _, err := s.Decant(ctx, strings.NewReader(echoApp), "deploy", "-f", "-"); err != nil {
		return 0, err
	}
	answer, err := s.Decant(ctx, strings.NewReader("hello"), "invoke", "bench")
	if err == nil && string(answer) != "hello" {
		err = errors.New("echo answered " + string(answer))
	}
	return time.Since(start), err
}
