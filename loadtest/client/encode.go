package client

import (
	"encoding/binary"
	"strconv"

	"github.com/centrifugal/protocol"
)

// AppendPosition appends the data of a pushed position.
func AppendPosition(b []byte, booking string, position, minutes int) []byte {
	b = append(b, `{"via":"scheduling-system","type":"QUEUE_POSITION_UPDATED","bookingId":"`...)
	b = append(b, booking...)
	b = append(b, `","queuePosition":`...)
	b = strconv.AppendInt(b, int64(position), 10)
	b = append(b, `,"estimatedWaitMinutes":`...)
	b = strconv.AppendInt(b, int64(minutes), 10)
	return append(b, '}')
}

// AppendPush appends a publication to a message, encoded as a server does.
func AppendPush(b []byte, kind protocol.Type, channel, data []byte) []byte {
	if kind == protocol.TypeProtobuf {
		return appendPushProtobuf(b, channel, data)
	}
	if len(b) > 0 {
		b = append(b, '\n')
	}
	b = append(b, pushHead+`"`...)
	b = append(b, channel...)
	b = append(b, `"`+pushMiddle...)
	b = append(b, data...)
	return append(b, pushTail...)
}

// appendPushProtobuf appends a publication preceded by its length.
func appendPushProtobuf(b []byte, channel, data []byte) []byte {
	pub := fieldSize(len(data))
	push := fieldSize(len(channel)) + fieldSize(pub)
	b = binary.AppendUvarint(b, uint64(fieldSize(push)))
	b = binary.AppendUvarint(append(b, replyPush), uint64(push))
	b = binary.AppendUvarint(append(b, pushChannel), uint64(len(channel)))
	b = append(b, channel...)
	b = binary.AppendUvarint(append(b, pushPub), uint64(pub))
	b = binary.AppendUvarint(append(b, pubData), uint64(len(data)))
	return append(b, data...)
}

// fieldSize returns the size of a field of bytes with its tag and length.
func fieldSize(n int) int {
	var scratch [binary.MaxVarintLen64]byte
	return 1 + binary.PutUvarint(scratch[:], uint64(n)) + n
}

// AppendMessage appends a message as one unmasked frame.
func AppendMessage(b []byte, kind protocol.Type, message []byte) []byte {
	opcode := opText
	if kind == protocol.TypeProtobuf {
		opcode = opBinary
	}
	return append(appendFrameHead(b, opcode, len(message)), message...)
}
