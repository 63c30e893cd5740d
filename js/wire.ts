// What crosses between Python and the browser: arrays as bytes, requests and answers.

export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;

export interface Packed {
  data: DataView | ArrayBuffer | Uint8Array;
  dtype: string;
  shape: number[];
}

export interface Tensor {
  data: Numbers;
  shape: number[];
}

export interface Ask {
  id: number;
  kind: string;
  [field: string]: unknown;
}

export type Answer = { id: number; ok: unknown } | { id: number; error: string };

export const EMPTY: Tensor = { data: new Float32Array(0), shape: [0] };

/** The bytes on their own, because a typed array must start at a multiple of its width. */
function bytesOf(data: Packed["data"]): ArrayBuffer {
  if (data instanceof ArrayBuffer) return data;
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength) as ArrayBuffer;
}

export function unpack(packed: Packed | null | undefined): Tensor {
  if (!packed || !packed.data) return EMPTY;
  const bytes = bytesOf(packed.data);
  const shape = packed.shape.map(Number);
  const data = view(bytes, packed.dtype);
  const size = shape.reduce((a, b) => a * b, 1);
  if (data.length !== size) {
    throw new Error(`array of ${data.length} numbers, but its shape [${shape}] holds ${size}`);
  }
  return { data, shape };
}

function view(bytes: ArrayBuffer, dtype: string): Numbers {
  switch (dtype) {
    case "float32":
      return new Float32Array(bytes);
    case "float64":
      return new Float64Array(bytes);
    case "int32":
      return new Int32Array(bytes);
    case "uint8":
      return new Uint8Array(bytes);
    default:
      throw new Error(`array of dtype ${JSON.stringify(dtype)}; float32, float64, int32 and uint8 cross`);
  }
}

export function isAnswer(content: unknown): content is Answer {
  if (typeof content !== "object" || content === null) return false;
  const message = content as Record<string, unknown>;
  return typeof message.id === "number" && ("ok" in message || typeof message.error === "string");
}

/** An array of an answer, whose bytes came as one of its buffers. */
export function arrived(array: { buffer: number; dtype: string; shape: number[] }, buffers: DataView[]): Packed {
  return { data: buffers[array.buffer]!, dtype: array.dtype, shape: array.shape };
}
