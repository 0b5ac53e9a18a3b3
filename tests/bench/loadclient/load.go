package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

type headers []string

func (h *headers) String() string { return fmt.Sprint(*h) }

func (h *headers) Set(value string) error {
	*h = append(*h, value)
	return nil
}

// result is what one load came to. Micros has one entry for each call that was answered OK.
type result struct {
	Seconds    float64        `json:"seconds"`
	CPUSeconds float64        `json:"cpu_seconds"`
	Micros     []int64        `json:"micros"`
	Failures   map[string]int `json:"failures"`
	Sample     string         `json:"sample_failure"`
}

type outcome struct {
	micros int64
	err    error
}

// load sends requests from a number of callers, each waiting for its answer, until the time is over or, without
// -cycle, the requests are. With -rate it sends at fixed instants, and a late call's waiting counts.
func load(arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("address", "", "host:port")
	method := flags.String("method", "", "/package.Service/Method")
	file := flags.String("requests", "", "file of requests, each with its length before it (4 bytes, big endian)")
	answers := flags.String("answers", "", "file for the answers, in the same form and order; failed ones are empty")
	callers := flags.Int("callers", 16, "calls in flight")
	connections := flags.Int("connections", 4, "HTTP/2 connections")
	seconds := flags.Float64("seconds", 3600, "stop beginning calls after that")
	cycle := flags.Bool("cycle", false, "begin again at the first request")
	rate := flags.Float64("rate", 0, "calls begun per second; 0: as many as the callers can")
	timeout := flags.Duration("timeout", 20*time.Second, "of one call")
	var sent headers
	flags.Var(&sent, "header", "name: value; may be given several times")
	_ = flags.Parse(arguments)

	requests, err := readMessages(*file)
	if err != nil {
		return err
	}
	if len(requests) == 0 {
		return errors.New("there are no requests")
	}
	pool := make([]*grpc.ClientConn, *connections)
	for i := range pool {
		if pool[i], err = dial(*address); err != nil {
			return err
		}
		defer pool[i].Close()
		pool[i].Connect()
	}

	outcomes := make([][]outcome, *callers)
	kept := make([][]byte, len(requests))
	var next int64 = -1
	var group sync.WaitGroup
	cpuBefore := cpuSeconds()
	began := time.Now()
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	for caller := 0; caller < *callers; caller++ {
		group.Add(1)
		go func(caller int) {
			defer group.Done()
			for {
				number := int(atomic.AddInt64(&next, 1))
				if number >= len(requests) && !*cycle {
					return
				}
				due := time.Now()
				if *rate > 0 {
					due = began.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
					time.Sleep(time.Until(due))
				}
				if due.After(end) {
					return
				}
				answer, err := call(pool[caller%len(pool)], *method, sent, requests[number%len(requests)], *timeout)
				outcomes[caller] = append(outcomes[caller], outcome{micros: time.Since(due).Microseconds(), err: err})
				if *answers != "" && err == nil && number < len(kept) {
					kept[number] = answer
				}
			}
		}(caller)
	}
	group.Wait()
	took := time.Since(began).Seconds()
	if *answers != "" {
		if err := writeMessages(*answers, kept); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(summarise(outcomes, took, cpuSeconds()-cpuBefore))
}

func summarise(outcomes [][]outcome, seconds, cpu float64) result {
	found := result{Seconds: seconds, CPUSeconds: cpu, Micros: []int64{}, Failures: map[string]int{}}
	for _, ofCaller := range outcomes {
		for _, one := range ofCaller {
			if one.err == nil {
				found.Micros = append(found.Micros, one.micros)
				continue
			}
			found.Failures[status.Code(one.err).String()]++
			found.Sample = one.err.Error()
		}
	}
	return found
}

func readMessages(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	var messages [][]byte
	for {
		var length uint32
		if err := binary.Read(reader, binary.BigEndian, &length); err == io.EOF {
			return messages, nil
		} else if err != nil {
			return nil, err
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(reader, message); err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
}

func writeMessages(path string, messages [][]byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	writer := bufio.NewWriter(file)
	for _, message := range messages {
		if err := binary.Write(writer, binary.BigEndian, uint32(len(message))); err != nil {
			return err
		}
		if _, err := writer.Write(message); err != nil {
			return err
		}
	}
	return writer.Flush()
}

// cpuSeconds is what this process has used so far, in user and kernel mode.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
