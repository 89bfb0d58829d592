"""A grpcio client that calls `library.v1.Library` at the address given, natively. Fails loudly."""

import sys

import grpc


def text(number, value):
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it should have failed")


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    service = "/library.v1.Library/"
    get = channel.unary_unary(service + "GetBook")
    book, call = get.with_call(text(1, "shelves/a/books/b"), metadata=(("x-custom", "1"),), timeout=10)
    assert b"Walden" in book, book
    assert ("x-seen-custom", "1") in call.initial_metadata(), call.initial_metadata()
    gone = status_of(lambda: get(text(1, "shelves/a/books/gone"), timeout=10))
    assert gone.code() == grpc.StatusCode.NOT_FOUND, gone
    assert gone.details() == "no \u201csuch\u201d book: 100%", gone.details()
    slow = status_of(lambda: get(text(1, "shelves/a/books/slow"), timeout=0.2))
    assert slow.code() == grpc.StatusCode.DEADLINE_EXCEEDED, slow
    listed = channel.unary_stream(service + "ListBooks")
    assert len(list(listed(text(1, "shelves/a") + b"\x10\x03", timeout=10))) == 3
    add = channel.stream_unary(service + "AddBooks")
    assert add(iter([b"\x18\x01", b"\x18\x02"]), timeout=10) == b"\x08\x02\x10\x03"
    talk = channel.stream_stream(service + "Talk")
    said = [text(1, "a"), text(1, "b")]
    heard = list(talk(iter(said), timeout=10))
    assert heard == [text(1, "you said a"), text(1, "you said b"), text(1, "goodbye")], heard
    unknown = status_of(lambda: channel.unary_unary("/library.v1.Library/Nothing")(b"", timeout=10))
    assert unknown.code() == grpc.StatusCode.UNIMPLEMENTED, unknown
    print("ok")


main()
