package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const maxAnswerBytes = 16 << 20

// raw passes messages through as the bytes they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) ([]byte, error) {
	bytes, ok := message.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("not bytes: %T", message)
	}
	return *bytes, nil
}

func (raw) Unmarshal(data []byte, message any) error {
	into, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("not bytes: %T", message)
	}
	// The buffer belongs to the transport.
	*into = append((*into)[:0], data...)
	return nil
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
	)
}

func call(connection *grpc.ClientConn, method string, headers []string, request []byte, timeout time.Duration) ([]byte, error) {
	deadline, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var answer []byte
	err := connection.Invoke(withHeaders(deadline, headers), method, &request, &answer)
	return answer, err
}

// withHeaders takes headers as "name: value".
func withHeaders(base context.Context, headers []string) context.Context {
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		base = metadata.AppendToOutgoingContext(base, name, strings.TrimSpace(value))
	}
	return base
}
